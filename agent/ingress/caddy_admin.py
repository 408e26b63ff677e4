"""Calls of Caddy's admin API, which listens on a socket file that only we can open.

Owns the bytes of a call; what is asked, and when, is `caddy_process`' business.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import socket
from typing import Any

log = logging.getLogger(__name__)

CALL_S = 5.0
LOAD_S = 20.0  # the configuration before ends in it, after its `shutdown_delay`


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path, self._timeout_s = path, timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


def admin_call(
    path: str, method: str, url: str, body: bytes | None = None, timeout_s: float = CALL_S
) -> tuple[int, bytes]:
    """One call; raises OSError when nobody answers."""
    connection = _UnixConnection(path, timeout_s)
    try:
        headers = {"Content-Type": "application/json", "Connection": "close"}
        connection.request(method, url, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


async def answers(path: str) -> bool:
    """Whether it serves: a Caddy that is still taking up its configuration answers when it has."""
    with contextlib.suppress(OSError):
        status, _ = await asyncio.to_thread(admin_call, path, "GET", "/config/admin/listen")
        return status == 200
    return False


async def load(path: str, config: dict[str, Any]) -> bool:
    """Have it take up another configuration; False (and a line in the log) when it does not."""
    try:
        status, answer = await asyncio.to_thread(admin_call, path, "POST", "/load", json.dumps(config).encode(), LOAD_S)
    except OSError as error:
        log.warning("caddy did not take the new configuration: %s", error)
        return False
    if status != 200:
        log.warning("caddy refused the new configuration: %s", answer.decode(errors="replace").strip())
    return status == 200


async def listening(path: str) -> list[str]:
    """Where the configuration that it runs listens; empty when it does not say."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        status, answer = await asyncio.to_thread(admin_call, path, "GET", "/config/apps/http/servers")
        if status == 200:
            return [entry for server in json.loads(answer).values() for entry in server["listen"]]
    return []


async def busy(path: str) -> bool:
    """Whether any request is open; a Caddy that does not say counts as not busy."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        status, answer = await asyncio.to_thread(admin_call, path, "GET", "/reverse_proxy/upstreams")
        return status == 200 and any(entry["num_requests"] for entry in json.loads(answer))
    return False

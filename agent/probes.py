"""Asking an instance whether it serves: one question, one answer within the check's time-out.

Owns the questions (http, tcp, exec, process); what a row of answers means is `agent.health`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from agent.protocol import HealthCheck
from agent.runtimes.base import Executed, RuntimeFault
from agent.wire import Request, WireError, fetch

Execute = Callable[[str, float], Awaitable[Executed]]
_BODY_LIMIT = 1024 * 1024


async def ask(check: HealthCheck, address: str, port: int, execute: Execute) -> tuple[bool, str]:
    """Whether it answered well, and what it said in a few words. Asked only while its process runs."""
    if check.type == "process":
        return True, "its process runs"
    if check.type == "http":
        return await _http(check, address, port)
    if check.type == "exec":
        return await _exec(check, execute)
    return await _tcp(check, address, port)


async def _tcp(check: HealthCheck, address: str, port: int) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(check.timeout_s):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return False, f"no connection to port {port} within {check.timeout_s:g} s"
    except OSError as error:
        return False, f"port {port}: {_reason(error)}"
    with contextlib.suppress(OSError):
        writer.transport.abort()
    return True, f"port {port} accepts connections"


async def _http(check: HealthCheck, address: str, port: int) -> tuple[bool, str]:
    host = f"[{address}]" if ":" in address else address
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    request = Request("GET", f"http://{host}:{port}{path}", {"User-Agent": "omni-health"})
    try:
        answer = await fetch(request, check.timeout_s, _BODY_LIMIT, connect_s=check.timeout_s)
    except WireError as error:
        return False, str(error)[:300]
    return 200 <= answer.status < 400, f"GET {path} answered {answer.status}"


async def _exec(check: HealthCheck, execute: Execute) -> tuple[bool, str]:
    try:
        done = await execute(check.command, check.timeout_s)
    except RuntimeFault as error:
        return False, str(error)[:300]
    if done.code is None:
        return False, f"the command did not end within {check.timeout_s:g} s"
    said = done.output.strip().splitlines()
    return done.code == 0, f"the command exited with code {done.code}" + (f": {said[-1][:200]}" if said else "")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).lower()

"""Asking an instance whether it serves: one question, one answer within the check's time-out.

Owns the questions (http, tcp, exec, process); what a row of answers means is `agent.health`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.protocol import HealthCheck
from agent.runtimes.base import Executed, RuntimeFault
from agent.wire import Request, WireError, fetch

Execute = Callable[[str, float], Awaitable[Executed]]
_BODY_LIMIT = 1024 * 1024
_SNIPPET = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether it answered well, what came of it in a few words, and the answer itself as far as there was one."""

    ok: bool
    said: str
    status: int | None = None
    snippet: str = ""
    reached: bool = True  # something took the question, well or not


async def ask(check: HealthCheck, address: str, port: int, execute: Execute) -> Answer:
    """Asked only while its process runs."""
    if check.type == "process":
        return Answer(True, "its process runs")
    if check.type == "http":
        return await _http(check, address, port)
    if check.type == "exec":
        return await _exec(check, execute)
    return await _tcp(check, address, port)


async def _tcp(check: HealthCheck, address: str, port: int) -> Answer:
    try:
        async with asyncio.timeout(check.timeout_s):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return Answer(False, f"no connection to port {port} within {check.timeout_s:g} s", reached=False)
    except OSError as error:
        return Answer(False, f"port {port}: {_reason(error)}", reached=False)
    with contextlib.suppress(OSError):
        writer.transport.abort()
    return Answer(True, f"port {port} accepts connections")


async def _http(check: HealthCheck, address: str, port: int) -> Answer:
    host = f"[{address}]" if ":" in address else address
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    request = Request("GET", f"http://{host}:{port}{path}", {"User-Agent": "omni-health"})
    try:
        answer = await fetch(request, check.timeout_s, _BODY_LIMIT, connect_s=check.timeout_s)
    except WireError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
            return Answer(False, f"port {port}: {_reason(cause)}", reached=False)
        return Answer(False, str(error)[:300])
    said = f"GET {path} answered {answer.status}"
    return Answer(200 <= answer.status < 400, said, answer.status, _beginning(answer.body))


async def _exec(check: HealthCheck, execute: Execute) -> Answer:
    try:
        done = await execute(check.command, check.timeout_s)
    except RuntimeFault as error:
        return Answer(False, str(error)[:300])
    if done.code is None:
        return Answer(False, f"the command did not end within {check.timeout_s:g} s")
    lines = done.output.strip().splitlines()
    said = f"the command exited with code {done.code}" + (f": {lines[-1][:200]}" if lines else "")
    return Answer(done.code == 0, said, done.code, done.output[-_SNIPPET:])


def _beginning(body: bytes) -> str:
    """Readable as one piece of text, whatever it was."""
    text = body[: 4 * _SNIPPET].decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)[:_SNIPPET]


def _reason(error: OSError) -> str:
    """In the system's words; asyncio's own name the call and the address once more."""
    said = os.strerror(error.errno) if error.errno else error.strerror or str(error)
    return (said or type(error).__name__).lower()

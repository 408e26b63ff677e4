"""A command beside the program of a container, ended when it takes too long.

Owns the two calls that it takes, and the end that the engine has no call for. Keeps nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

from agent import procfs
from agent.runtimes.base import Executed
from agent.runtimes.engine import figures
from agent.runtimes.engine.client import Engine, EngineError
from agent.runtimes.shell import shell_line

_OUTPUT = 2000
_BEGINS_S = 5.0


async def execute(engine: Engine, container: str, command: str, timeout_s: float) -> Executed:
    """As the container's own user, by its shell. Raises Away, Declined."""
    shell = ["/bin/sh", "-c", shell_line(command)]
    made = await engine.call(lambda client: client.exec_create(container, shell))
    running = asyncio.ensure_future(engine.call(lambda client: _collect(client, made["Id"]), lane="command"))
    done, _ = await asyncio.wait([running], timeout=timeout_s)
    if not done:
        await end(engine, made["Id"], container)
        running.add_done_callback(lambda task: task.cancelled() or task.exception())
        return Executed(None, "")
    said = running.result()
    about = await engine.call(lambda client: client.exec_inspect(made["Id"]))
    return Executed(about.get("ExitCode"), said[-_OUTPUT:].decode("utf-8", "replace"))


async def end(engine: Engine, execution: str, container: str) -> None:
    """A command that took too long: the engine has no call for that, so its processes are ended here."""
    with contextlib.suppress(EngineError, OSError):
        pid = await _process_of(engine, execution)
        if figures.place_of(pid, container) is not None:
            for below in procfs.descendants(procfs.scan(), {pid}):
                os.kill(below, signal.SIGKILL)


async def _process_of(engine: Engine, execution: str) -> int:
    """0 when it has ended. A busy engine may not have begun with it yet, and would begin later."""
    clock = asyncio.get_running_loop().time
    until = clock() + _BEGINS_S
    while True:
        about = await engine.call(lambda client: client.exec_inspect(execution))
        pid = int(about.get("Pid") or 0)
        if pid or about.get("ExitCode") is not None or clock() >= until:
            return pid
        await asyncio.sleep(0.05)


def _collect(client: Any, execution: str) -> bytes:
    """The end of what it says; a command that says much is not kept whole."""
    said = b""
    for piece in client.exec_start(execution, stream=True):
        said = (said + piece)[-4 * _OUTPUT :]
    return said

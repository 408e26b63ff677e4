"""Finding and ending every process of one instance.

Owns signals and nothing else. A tree is found by four ways at once, because each alone is escaped by somebody: below
the watcher, inside the sandbox's pid namespace, in the instance's cgroup, and by the label in the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from agent import procfs
from agent.runtimes import watcher
from agent.runtimes.base import Unknown
from sandbox.cgroups import Group

_SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox", "zsh", "ksh"})
_KILL_DEADLINE_S = 10.0
_WATCHER_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Tree:
    """One instance's processes: `pid` and `start_time` are the watcher's, `group` its cgroup if it has one."""

    instance_id: int
    directory: Path
    pid: int
    start_time: int
    platform: str
    sandboxed: bool
    group: Group | None

    def watched(self) -> bool:
        return procfs.alive(self.pid, self.start_time)

    def program(self) -> int | None:
        """The user's own program: what a polite signal is for."""
        parent = self.init() if self.sandboxed else self.pid
        below = watcher.children(parent) if parent is not None and self.watched() else []
        return below[0] if below else None

    def init(self) -> int | None:
        """The first process of its namespace."""
        return watcher.sandbox_init(self.directory, self.start_time) if self.sandboxed else None

    def members(self) -> set[int]:
        """Living processes, the watcher included."""
        table = procfs.scan()
        roots: set[int] = set(watcher.labelled(self.platform).get(self.instance_id, ()))
        if self.watched():
            roots.add(self.pid)
        init = self.init()
        if init is not None:
            roots.add(init)
        if self.group is not None:
            roots.update(self.group.pids())
        roots.discard(os.getpid())
        return {pid for pid in procfs.descendants(table, roots) if table[pid].alive}

    async def terminate(self) -> None:
        """SIGTERM to the program.

        A shell that would die of it without passing it on is spared until its children, which get it first, are gone.
        Returns when everybody who is to get it has it, or is gone; cancel it when the patience is over.
        """
        program = await self._awaited_program()
        process = procfs.read(program) if program is not None else None
        if process is None:
            return
        children = watcher.children(process.pid) if _spared(process) else []
        for pid in children:
            send(pid, signal.SIGTERM)
        started = {pid: child.start_time for pid in children if (child := procfs.read(pid)) is not None}
        while any(procfs.alive(pid, start_time) for pid, start_time in started.items()):
            await asyncio.sleep(0.05)
        if procfs.alive(process.pid, process.start_time):
            send(process.pid, signal.SIGTERM)

    async def _awaited_program(self) -> int | None:
        # A program that was started a moment ago may not be there yet.
        for _ in range(50):
            program = self.program()
            if program is not None or not self.watched():
                return program
            await asyncio.sleep(0.02)
        return None

    async def kill(self) -> None:
        """SIGKILL everything until nothing is left; the watcher goes last, so that it can still write."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _KILL_DEADLINE_S
        grace = loop.time() + _WATCHER_GRACE_S
        while True:
            if self.group is not None and self.group.pids():
                await asyncio.to_thread(self.group.kill, 2.0)
            members = self.members()
            if not members:
                return
            spared = {self.pid} if loop.time() < grace else set()
            for pid in members - spared:
                send(pid, signal.SIGKILL)
            if loop.time() > deadline:
                raise Unknown(f"{len(members)} processes are still there after SIGKILL")
            await asyncio.sleep(0.01)


def _spared(process: procfs.Process) -> bool:
    return process.name in _SHELLS and not procfs.catches_term(process.pid)


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)

"""A runtime without processes, with knobs for every fault: for tests and for trying the agent out.

Owns an imaginary host. The host outlives the driver as a real one outlives the agent: give the same `FakeHost` to a
second `FakeRuntime` and it finds what the first one started.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agent.runtimes.base import Capabilities, Executed, Handle, Launch, Observation, Runtime, RuntimeFault, Stats


@dataclass
class FakeProcess:
    """What one start made. `ended` is set when nothing of it runs any more."""

    number: int
    launch: Launch
    outcome: Observation = field(default_factory=lambda: Observation("running"))
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    terms: int = 0


@dataclass
class FakeHost:
    """The knobs. `start_faults` are raised one after the other by the next starts; `fault_after_start` makes a start
    succeed and still raise (a lost answer); `ignores_term` lets programs survive a polite stop."""

    start_faults: list[RuntimeFault] = field(default_factory=list)
    fault_after_start: RuntimeFault | None = None
    ignores_term: bool = False
    exit_on_term: int = 0
    execute_code: int | None = 0
    processes: dict[int, FakeProcess] = field(default_factory=dict)
    starts: int = 0

    def die(self, instance_id: int, code: int | None = None, signal: int | None = None, oom: bool = False) -> None:
        """The program of this instance ends by itself."""
        process = self.processes[instance_id]
        if process.outcome.state == "running":
            process.outcome = Observation("ended", code=code, signal=signal, oom=oom)
            process.ended.set()

    def reboot(self) -> None:
        """Everything is gone and nobody saw it end."""
        for process in self.processes.values():
            if process.outcome.state == "running":
                process.outcome = Observation("absent")
                process.ended.set()


class FakeRuntime(Runtime):
    name = "fake"

    def __init__(self, host: FakeHost) -> None:
        self.host = host

    async def probe(self) -> Capabilities:
        return Capabilities(True, "none", "none", "shared", ["nothing is real here"])

    async def start(self, launch: Launch) -> Handle:
        process = self.host.processes.get(launch.instance_id)
        if process is not None and process.outcome.state == "running":
            return self._handle(process)
        if self.host.start_faults:
            raise self.host.start_faults.pop(0)
        self.host.starts += 1
        process = self.host.processes[launch.instance_id] = FakeProcess(self.host.starts, launch)
        fault, self.host.fault_after_start = self.host.fault_after_start, None
        if fault is not None:
            raise fault
        return self._handle(process)

    async def recover(self, instance_id: int) -> Handle | None:
        process = self.host.processes.get(instance_id)
        return None if process is None else self._handle(process)

    async def observe(self, handle: Handle) -> Observation:
        process = self._find(handle)
        return Observation("absent") if process is None else process.outcome

    async def wait(self, handle: Handle) -> None:
        process = self._find(handle)
        if process is not None:
            await process.ended.wait()

    async def stop(self, handle: Handle) -> None:
        process = self._find(handle)
        if process is not None:
            process.terms += 1
            if not self.host.ignores_term:
                self.host.die(process.launch.instance_id, code=self.host.exit_on_term)

    async def kill(self, handle: Handle) -> None:
        if self._find(handle) is not None:
            self.host.die(int(handle["instance"]), signal=9)

    async def stats(self, handle: Handle) -> Stats:
        running = (await self.observe(handle)).state == "running"
        return Stats(1000, 4096, 8192) if running else Stats(None, None, None)

    async def execute(self, launch: Launch, handle: Handle, command: str, timeout_s: float) -> Executed:
        return Executed(self.host.execute_code, "")

    async def remove(self, handle: Handle) -> None:
        await self.kill(handle)
        if self._find(handle) is not None:
            del self.host.processes[int(handle["instance"])]

    async def strays(self) -> dict[int, Handle]:
        running = {i: p for i, p in self.host.processes.items() if p.outcome.state == "running"}
        return {instance_id: self._handle(process) for instance_id, process in running.items()}

    def _find(self, handle: Handle) -> FakeProcess | None:
        process = self.host.processes.get(int(handle["instance"]))
        return process if process is not None and process.number == handle["start"] else None

    def _handle(self, process: FakeProcess) -> Handle:
        return {"instance": process.launch.instance_id, "start": process.number}

"""The runtime that this node does not have: says no to every start, and knows of nothing that runs."""

from __future__ import annotations

from agent.runtimes.base import Capabilities, Executed, Handle, Launch, Observation, Refused, Runtime, Stats


class AbsentRuntime(Runtime):
    def __init__(self, name: str) -> None:
        self.name = name

    async def probe(self) -> Capabilities:
        return Capabilities(False, "none", "none", "shared", [f"no runtime {self.name} on this node"])

    async def start(self, launch: Launch) -> Handle:
        raise Refused(f"this node has no runtime {self.name!r}")

    async def recover(self, instance_id: int) -> Handle | None:
        return None

    async def observe(self, handle: Handle) -> Observation:
        return Observation("absent")

    async def wait(self, handle: Handle) -> None:
        return

    async def stop(self, handle: Handle) -> None:
        return

    async def kill(self, handle: Handle) -> None:
        return

    async def stats(self, handle: Handle) -> Stats:
        return Stats(None, None, None)

    async def execute(self, launch: Launch, handle: Handle, command: str, timeout_s: float) -> Executed:
        raise Refused(f"this node has no runtime {self.name!r}")

    async def remove(self, handle: Handle) -> None:
        return

    async def strays(self) -> dict[int, Handle]:
        return {}

"""`python -m agent.keeper --config FILE`: ends a node's singletons when their lease ends, whatever became of its agent.

A process and session of its own, because an agent that is killed or frozen can end nothing, and somebody else will be
told to run the same app. Owns SIGTERM at the lease's end and SIGKILL `stop_timeout_s` later; the leader waits for both
before it replaces a singleton. Ends by itself when no singleton runs any more.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from agent import clock, config, fencing
from agent.record import Record
from agent.runtimes import docker
from agent.runtimes.absent import AbsentRuntime
from agent.runtimes.base import Handle, Runtime, RuntimeFault
from agent.runtimes.process import ProcessRuntime
from agent.store import SWEPT, Store
from observing import journal
from sandbox.engines import OFF
from sandbox.probe import Facts

log = logging.getLogger("agent.keeper")

LOOK_S = 0.2
IDLE_S = 2.0  # without a singleton; the agent starts another keeper before it starts one


class Keeper:
    def __init__(self, given: config.Config) -> None:
        instances_dir = Path(given.instances_dir)
        self._lease = Path(given.state_dir) / fencing.LEASE
        self._store = Store(given.node, instances_dir, Path(given.state_dir))
        facts = Facts("none", "none", "shared")  # those of the start are in each handle; nothing is started here
        self._runtimes: dict[str, Runtime] = {
            "process": ProcessRuntime(given.node, instances_dir, given.platform, facts, given.uid_base)
        }
        if given.docker != OFF:
            self._runtimes["docker"] = docker.of(given)
        self._kill_at: dict[int, float] = {}

    async def run(self) -> None:
        """Until nothing has needed it for `IDLE_S`."""
        known: dict[int, tuple[Record, Handle]] = {}
        needed_at = clock.monotonic()
        while clock.monotonic() - needed_at < IDLE_S:
            expired = clock.monotonic() >= fencing.until(self._lease)
            if not expired:
                self._kill_at.clear()
            known = {pk: entry for pk, entry in known.items() if await self._runs(*entry)}
            if expired or not known:
                known = await self._find()
            if known:
                needed_at = clock.monotonic()
            for record, handle in known.values() if expired else ():
                await self._end(record, handle)
            await asyncio.sleep(LOOK_S)

    async def _find(self) -> dict[int, tuple[Record, Handle]]:
        """This node's singletons that run."""
        found = {}
        for record in self._store.load():
            if record.assignment.singleton and not record.terminal:
                handle = await self._recovered(record)
                if handle is not None and await self._runs(record, handle):
                    found[record.id] = record, handle
        return found

    async def _recovered(self, record: Record) -> Handle | None:
        try:
            return await self._of(record).recover(record.id)
        except RuntimeFault:
            return record.handle  # an engine that is away ends nothing, and asks nobody

    async def _runs(self, record: Record, handle: Handle) -> bool:
        try:
            return (await self._of(record).observe(handle)).state == "running"
        except RuntimeFault:
            return True

    def _of(self, record: Record) -> Runtime:
        wanted = record.assignment.runtime
        return self._runtimes.get(wanted) or AbsentRuntime(wanted)

    async def _end(self, record: Record, handle: Handle) -> None:
        now = clock.monotonic()
        try:
            if record.id not in self._kill_at:
                log.warning("instance %s is a singleton and its lease has ended: SIGTERM", record.id)
                (self._store.directory(record.id) / SWEPT).touch()  # no crash of its own
                self._kill_at[record.id] = now + record.assignment.stop_timeout_s
                await self._of(record).stop(handle)
            elif now >= self._kill_at[record.id]:
                log.warning("instance %s did not end in time: SIGKILL", record.id)
                await self._of(record).kill(handle)
        except (RuntimeFault, OSError) as error:
            log.error("instance %s: %s", record.id, error)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agent.keeper", description="Ends singletons without a lease.")
    parser.add_argument("--config", type=Path, required=True)
    given = config.load(parser.parse_args(argv).config)
    journal.configure("keeper")
    with fencing.alone(Path(given.state_dir)) as only:
        if only:
            asyncio.run(Keeper(given).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())

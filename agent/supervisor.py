"""All instances of this node: which there are, started from disk and from the control plane's lists.

Owns the set and the tasks that run them; what each does is `agent.instance`'s. Applies a list only when it is not
older than the last and of the same cluster. Sweeps what no fresh list knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from agent import clock, record
from agent.fencing import Keeper, Lease
from agent.instance import Instance, Surroundings
from agent.logs.ship import Shipper
from agent.logs.tail import Tail
from agent.packages import Packages
from agent.ports import Ports
from agent.protocol import Assignment, Assignments, Observed, SessionOrder, VolumeJob, VolumeOrder
from agent.record import Record
from agent.runtimes.absent import AbsentRuntime
from agent.runtimes.base import Runtime, RuntimeFault
from agent.store import Applied, Store

log = logging.getLogger(__name__)

SWEEP_S = 60.0
COLLECT_AFTER_S = 2.0
_LAST = 2**31 - 1
EPOCH_JUMP = 1_000  # by so much the epoch rises when a database was restored or taken over, and never otherwise


class ForeignList(Exception):
    """A list that must not be applied; the text says why."""


class Supervisor:
    def __init__(
        self,
        store: Store,
        runtimes: dict[str, Runtime],
        packages: Packages,
        ports: Ports,
        shipper: Shipper,
        address: str,
        log_max_bytes: int,
        report: Callable[[Observed], None],
        gone: Callable[[int], None],
        lease: Lease | None = None,
        keeper: Keeper | None = None,
        volumes: Callable[[Sequence[VolumeOrder]], None] | None = None,
        sessions: Callable[[Sequence[SessionOrder]], None] | None = None,
        volume_jobs: Callable[[Sequence[VolumeJob]], None] | None = None,
    ) -> None:
        self._store = store
        self._runtimes = runtimes
        self._shipper = shipper
        self._packages = packages
        self._log_max_bytes = log_max_bytes
        self._report_out = report
        self._gone = gone
        self._lease = lease
        self._keeper = keeper
        self._volumes = volumes
        self._sessions = sessions
        self._volume_jobs = volume_jobs
        self._around = Surroundings(
            address, store, packages, ports, self._ports_taken, self._report, self._deleted, self._leased
        )
        self._instances: dict[int, Instance] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._impostors: set[int] = set()
        self._fresh = False
        self._collect_due = asyncio.Event()
        self.applied = store.applied()

    @property
    def instances(self) -> dict[int, Instance]:
        return self._instances

    def volumes_in_use(self) -> set[str]:
        """Keys of the volumes of everything that has not ended here."""
        held = (one.record for one in self._instances.values() if one.runs or not one.record.terminal)
        return {mount.key for record in held for mount in record.assignment.volumes}

    def load(self) -> None:
        """Go on with everything that an earlier agent of this node had."""
        for kept in self._store.load():
            self._add(kept)
            if not kept.orphan:
                self._report(kept.observed)

    def apply(self, wanted: Assignments, unreadable: frozenset[int] = frozenset()) -> None:
        """Take over a whole list; raises ForeignList and changes nothing when it is another's or an older one.

        Instances that are `unreadable` in the list stay as they are.
        """
        self._check(wanted)
        if self.applied.epoch and wanted.epoch - self.applied.epoch >= EPOCH_JUMP:
            self._tell_all()
        for assignment in wanted.instances:
            self._assign(assignment)
        listed = {assignment.id for assignment in wanted.instances} | unreadable
        for instance_id, instance in self._instances.items():
            if instance_id not in listed:
                instance.orphan()
        if self._volumes is not None:
            self._volumes(wanted.volumes)
        if self._volume_jobs is not None:
            self._volume_jobs(wanted.volume_jobs)
        if self._sessions is not None:
            self._sessions(wanted.sessions)
        self.applied = Applied(wanted.cluster_id, wanted.epoch, wanted.index)
        self._store.save_applied(self.applied)
        self._fresh = True

    def forget(self, ids: Iterable[int]) -> None:
        """The control plane never heard of these, or has purged them."""
        for instance_id in ids:
            instance = self._instances.get(instance_id)
            if instance is not None:
                instance.orphan()

    async def sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S if self._fresh else 1.0)
            if self._fresh:
                await self.sweep()

    async def sweep(self) -> None:
        """End processes of this node that belong to no instance it has; needs a list from this agent's lifetime."""
        for name, runtime in self._runtimes.items():
            try:
                for instance_id, handle in (await runtime.strays()).items():
                    if instance_id not in self._instances:
                        log.warning("sweeping %s process tree of unknown instance %s", name, instance_id)
                        await runtime.remove(handle)
                        self._store.delete(instance_id)
            except RuntimeFault as error:
                log.warning("sweep: %s", error)

    async def collect_forever(self) -> None:
        """Throw away trees nobody needs: soon after an instance went, and now and then."""
        while True:
            try:
                async with asyncio.timeout(600):
                    await self._collect_due.wait()
            except TimeoutError:
                pass
            self._collect_due.clear()
            await asyncio.sleep(COLLECT_AFTER_S)
            for digest in await self._packages.collect():
                log.info("removed the tree of package %s", digest[:12])

    async def close(self) -> None:
        """The agent ends; instances stay as they are."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for instance in self._instances.values():
            await instance.close()

    def _check(self, wanted: Assignments) -> None:
        known = self.applied
        if wanted.node != self._store.node:
            raise ForeignList(f"a list for node {wanted.node!r}")
        if known.cluster_id and wanted.cluster_id != known.cluster_id:
            raise ForeignList(f"a list of cluster {wanted.cluster_id!r}, ours is {known.cluster_id!r}")
        if (wanted.epoch, wanted.index) < (known.epoch, known.index):
            raise ForeignList(f"a list of {wanted.epoch}.{wanted.index}, older than {known.epoch}.{known.index}")

    def _report(self, observed: Observed) -> None:
        """What happens to an instance that only has another's number is no news of that other."""
        if observed.id not in self._impostors:
            self._report_out(observed)

    def acknowledged(self, sent_at: float) -> None:
        """The leader has taken a report that was sent then."""
        if self._lease is not None:
            self._lease.renewed(sent_at)
        if any(instance.record.assignment.singleton and instance.runs for instance in self._instances.values()):
            self._kept()

    def _leased(self) -> bool:
        """Whether a singleton may start here: the lease is held, and somebody will see to its end."""
        if self._lease is None:
            return True
        self._lease.need()
        return self._kept() and self._lease.held

    def _kept(self) -> bool:
        try:
            if self._keeper is not None:
                self._keeper.ensure()
        except OSError as error:
            log.warning("the keeper of singletons cannot be started: %s", error)
            return False
        return True

    def _tell_all(self) -> None:
        """The database is an older one or another's: what it acknowledged of us may not be in it."""
        log.warning("the database was restored or taken over: telling everything again")
        for instance in self._instances.values():
            self._report(instance.record.observed)

    def _assign(self, assignment: Assignment) -> None:
        instance = self._instances.get(assignment.id)
        if instance is not None:
            if _is_another(instance.record.assignment, assignment):
                log.error("instance %s is not the one that runs here under this number; that one ends", assignment.id)
                self._impostors.add(assignment.id)
                instance.orphan()  # the right one starts with a later list, when nothing is left of it
                return
            instance.assign(assignment)
            return
        if assignment.desired == "remove" and not self._store.directory(assignment.id).exists():
            # It may still be thought to run here; this number is above whatever was told of it before.
            self._report(Observed(assignment.id, _LAST, "stopped", detail="nothing of it is left on this node"))
            self._gone(assignment.id)
            return
        kept = record.new(self._store.node, clock.boot_id(), assignment)
        self._store.save(kept)
        self._add(kept)
        self._report(kept.observed)

    def _add(self, kept: Record) -> None:
        instance_id = kept.id
        tail = Tail(Path(self._store.directory(instance_id)), self._log_max_bytes)
        wanted = kept.assignment.runtime
        runtime = self._runtimes.get(wanted) or AbsentRuntime(wanted)
        instance = Instance(kept, runtime, tail, self._around)
        self._instances[instance_id] = instance
        self._shipper.add(instance_id, kept.assignment.app_id, tail, instance.nudge)
        self._tasks[instance_id] = asyncio.create_task(instance.run(), name=f"instance {instance_id}")

    def _ports_taken(self) -> set[int]:
        return {instance.record.port for instance in self._instances.values() if instance.record.port is not None}

    def _deleted(self, instance_id: int) -> None:
        self._shipper.drop(instance_id)
        self._instances.pop(instance_id, None)
        self._tasks.pop(instance_id, None)
        if instance_id in self._impostors:
            self._impostors.discard(instance_id)
        else:
            self._gone(instance_id)
        self._collect_due.set()


def _is_another(known: Assignment, wanted: Assignment) -> bool:
    """What an instance is never changes: another app or package under its number comes from another database."""
    return (known.app_id, known.release.package) != (wanted.app_id, wanted.release.package)

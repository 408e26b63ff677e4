"""Figures of each instance and of the host, every few seconds.

Owns the measuring and the difference between two readings; what cannot be measured is None, never 0. A sample that
nobody takes is dropped: the next one follows anyway.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import orjson

from agent import clock
from agent.control import ControlPlane, NoAnswer, Rejected
from agent.instance import Instance
from agent.protocol import HostSample, Sample, Samples
from agent.runtimes.base import RuntimeFault, Stats
from agent.supervisor import Supervisor

log = logging.getLogger(__name__)

POST_S = 5.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """CPU time of one process tree at one moment; `start` tells one process from the next."""

    start: str | None
    cpu_us: int
    at: float


class Sampler:
    def __init__(self, node: str, control: ControlPlane, disk: Path, interval_s: float) -> None:
        self._node = node
        self._control = control
        self._disk = disk
        self._interval_s = interval_s
        self._last: dict[int, _Reading] = {}
        self._host_ticks: tuple[int, int] | None = None

    async def run(self, supervisor: Supervisor) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._interval_s, loop.time())
            await asyncio.sleep(due - loop.time())
            samples = await self.take(supervisor)
            try:
                await self._control.post("/agent/samples", orjson.dumps(samples), POST_S)
            except (NoAnswer, Rejected) as error:
                log.debug("samples dropped: %s", error)

    async def take(self, supervisor: Supervisor) -> Samples:
        instances = list(supervisor.instances.items())
        found = [await self._sample(instance) for _, instance in instances if instance.record.handle is not None]
        known = {instance_id for instance_id, _ in instances}
        self._last = {instance_id: last for instance_id, last in self._last.items() if instance_id in known}
        return Samples(self._node, found, self._host())

    async def _sample(self, instance: Instance) -> Sample:
        record, now = instance.record, clock.monotonic()
        stats = Stats(None, None, None)
        if record.handle is not None:
            try:
                stats = await instance.runtime.stats(record.handle)
            except RuntimeFault as error:
                log.debug("instance %s: no figures: %s", record.id, error)
        return Sample(
            instance_id=record.id,
            app_id=record.assignment.app_id,
            at_us=clock.wall_us(),
            cpu_percent=self._percent(record.id, record.observed.started_at, stats.cpu_us, now),
            memory_bytes=stats.memory_bytes,
            memory_limit_bytes=stats.memory_limit_bytes,  # None where nothing enforces one
            network_rx_bytes=stats.network_rx_bytes,  # None where the host's network is shared
            network_tx_bytes=stats.network_tx_bytes,
            restarts=record.observed.restarts,
            uptime_s=None if record.started is None else round(now - record.started, 3),
        )

    def _percent(self, instance_id: int, start: str | None, cpu_us: int | None, now: float) -> float | None:
        if cpu_us is None:
            return None
        last, self._last[instance_id] = self._last.get(instance_id), _Reading(start, cpu_us, now)
        if last is None or last.start != start or now <= last.at:
            return None
        return round(max(0.0, (cpu_us - last.cpu_us) / 10_000 / (now - last.at)), 2)

    def _host(self) -> HostSample | None:
        try:
            busy, total = _host_ticks()
            memory = _meminfo()
            disk = shutil.disk_usage(self._disk)
            load = os.getloadavg()[0]
        except (OSError, ValueError, KeyError, IndexError):
            return None
        before, self._host_ticks = self._host_ticks, (busy, total)
        if before is None or total <= before[1]:
            return None
        percent = 100.0 * (os.cpu_count() or 1) * (busy - before[0]) / (total - before[1])
        return HostSample(
            at_us=clock.wall_us(),
            cpu_percent=round(max(0.0, percent), 2),
            memory_used_bytes=memory["MemTotal"] - memory["MemAvailable"],
            memory_total_bytes=memory["MemTotal"],
            disk_free_bytes=disk.free,
            load_1m=load,
        )


def _host_ticks() -> tuple[int, int]:
    """Busy and total ticks of all cores since boot."""
    first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    ticks = [int(word) for word in first[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks)


def _meminfo() -> dict[str, int]:
    found = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found

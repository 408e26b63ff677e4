"""Rolling up: 5 s or 10 s → 1 min → 10 min, of instances, hosts, requests and the control plane itself.

Owns which step follows from which and when. A step is rolled up a minute after its end, so that slow reporters are in
it; rolling it up again gives the same row. How long each resolution is kept is `retention.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from instances.telemetry import platform_series, quantiles
from instances.telemetry import statements as sql
from instances.telemetry.figures import histogram_of

_LATE_US = 60_000_000
_MOST_STEPS = 240  # that one tick makes up for
_FIRST_STEPS = 120  # that a new leader looks back when nothing was rolled up yet

_SAMPLES = (
    "SELECT instance_id, MIN(app_id), AVG(cpu_percent), MAX(cpu_percent_max), AVG(memory_bytes), "
    "MAX(memory_bytes_max), MAX(network_rx_bytes), MAX(network_tx_bytes) "
    "FROM instances_sample WHERE step_s = %s AND at_us >= %s AND at_us < %s GROUP BY instance_id"
)
_SAMPLE_COLUMNS = ("instance_id", "app_id", "cpu_percent", "cpu_percent_max", "memory_bytes", "memory_bytes_max",
                   "network_rx_bytes", "network_tx_bytes", "step_s", "at_us")  # fmt: skip
_HOSTS = (
    "SELECT node, AVG(cpu_percent), MAX(COALESCE(cpu_percent_max, cpu_percent)), AVG(memory_used_bytes), "
    "MAX(COALESCE(memory_used_bytes_max, memory_used_bytes)), MAX(memory_total_bytes), MIN(disk_free_bytes), "
    "AVG(load_1m) FROM instances_hostsample WHERE step_s = %s AND at_us >= %s AND at_us < %s GROUP BY node"
)
_HOST_COLUMNS = ("node", "cpu_percent", "cpu_percent_max", "memory_used_bytes", "memory_used_bytes_max",
                 "memory_total_bytes", "disk_free_bytes", "load_1m", "step_s", "at_us")  # fmt: skip
_REQUESTS = (
    "SELECT app_id, instance_id, requests, failed, refused, retried, histogram FROM instances_requestsample "
    "WHERE step_s = %s AND at_us >= %s AND at_us < %s ORDER BY app_id, instance_id"
)
_REQUEST_COLUMNS = ("app_id", "instance_id", "requests", "failed", "refused", "retried", "histogram", "window_s",
                    "step_s", "at_us")  # fmt: skip


def _samples(source: int, target: int, start: int, end: int) -> None:
    rows = [
        (i, app, cpu, cpu_max, _whole(memory), _whole(memory_max), _whole(rx), _whole(tx), target, start)
        for i, app, cpu, cpu_max, memory, memory_max, rx, tx in sql.select(_SAMPLES, [source, start, end])
    ]
    sql.insert("instances_sample", _SAMPLE_COLUMNS, rows, again="ignore")


def _hosts(source: int, target: int, start: int, end: int) -> None:
    if _has("instances_hostsample", target, start):
        return
    rows = [
        (node, cpu, cpu_max, _whole(used), _whole(used_max), _whole(total), _whole(disk), load, target, start)
        for node, cpu, cpu_max, used, used_max, total, disk, load in sql.select(_HOSTS, [source, start, end])
    ]
    sql.insert("instances_hostsample", _HOST_COLUMNS, rows, again="error")


def _requests(source: int, target: int, start: int, end: int) -> None:
    if _has("instances_requestsample", target, start):
        return
    sums: dict[tuple[int, int], tuple[list[int], list[list[int]]]] = {}
    for app, instance, requests, failed, refused, retried, histogram in sql.select(_REQUESTS, [source, start, end]):
        counts, histograms = sums.setdefault((app, instance), ([0, 0, 0, 0], []))
        for i, count in enumerate((requests, failed, refused, retried)):
            counts[i] += int(count)
        histograms.append(histogram_of(histogram))
    rows = [
        (app, instance, *counts, orjson.dumps(quantiles.total(histograms)).decode(), float(target), target, start)
        for (app, instance), (counts, histograms) in sums.items()
    ]
    sql.insert("instances_requestsample", _REQUEST_COLUMNS, rows, again="error")


def _has(table: str, step_s: int, at_us: int) -> bool:
    """Whether a former leader has rolled this step up. These tables have no key that would tell by itself."""
    return bool(sql.select(f"SELECT 1 FROM {table} WHERE step_s = %s AND at_us = %s LIMIT 1", [step_s, at_us]))  # noqa: S608


Step = Callable[[int, int, int, int], None]
_TABLES: tuple[tuple[str, Step, tuple[tuple[int, int], ...]], ...] = (
    ("instances_sample", _samples, ((5, 60), (60, 600))),
    ("instances_hostsample", _hosts, ((5, 60), (60, 600))),
    ("instances_requestsample", _requests, ((5, 60), (60, 600))),
    ("instances_platformsample", platform_series.roll_up, ((10, 60), (60, 600))),
)


@dataclass(slots=True)
class RollUp:
    """Remembers how far each has come; a new leader starts over from what is stored."""

    _done_us: dict[tuple[str, int], int] = field(default_factory=dict)

    def tick(self, now_us: int) -> None:
        for table, step, pairs in _TABLES:
            for source, target in pairs:
                self._roll_up(table, step, source, target, now_us)

    def _roll_up(self, table: str, step: Step, source: int, target: int, now_us: int) -> None:
        step_us = target * 1_000_000
        end = (now_us - _LATE_US) // step_us * step_us
        key = (table, target)
        start = self._done_us.get(key)
        if start is None:
            start = self._done_us[key] = _next_after(table, target, end - _FIRST_STEPS * step_us)
        for at in range(start, min(end, start + _MOST_STEPS * step_us), step_us):
            step(source, target, at, at + step_us)
            self._done_us[key] = at + step_us


def _next_after(table: str, target: int, default_us: int) -> int:
    query = f"SELECT MAX(at_us) FROM {table} WHERE step_s = %s AND at_us >= %s"  # noqa: S608
    newest = sql.select(query, [target, default_us])[0][0]
    step_us = target * 1_000_000
    return int(newest) + step_us if newest is not None else default_us // step_us * step_us


def _whole(value: object) -> int | None:
    return None if value is None else int(float(str(value)))

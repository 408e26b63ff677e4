"""What telemetry forgets and condenses: run by the leader's daemon, in small portions.

Owns `tick`: rolls samples up (5 s → 1 min → 10 min), removes what is older than configured, trims logs that are too
long, and sweeps what belongs to instances that no longer exist. Never touches a gated table.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction

from instances.models import Instance
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.kernel.tables import TELEMETRY

EVERY_S = 60.0
PORTION = 5_000  # rows one statement deletes
_APPS_A_TICK = 500
_ROLLUPS = ((5, 60), (60, 600))
_log = logging.getLogger("omni.retention")

_ROLL_UP = (
    "SELECT instance_id, MIN(app_id), AVG(cpu_percent), MAX(cpu_percent_max), AVG(memory_bytes), "
    "MAX(memory_bytes_max), MAX(network_rx_bytes), MAX(network_tx_bytes) "
    "FROM instances_sample WHERE step_s = %s AND at_us >= %s AND at_us < %s GROUP BY instance_id"
)
_COLUMNS = ("instance_id", "app_id", "cpu_percent", "cpu_percent_max", "memory_bytes", "memory_bytes_max",
            "network_rx_bytes", "network_tx_bytes", "step_s", "at_us")  # fmt: skip


@dataclass(slots=True)
class Retention:
    """Remembers how far it has rolled up; a new leader starts over from what is stored."""

    _rolled_us: dict[int, int] = field(default_factory=dict)
    _app_cursor: int = 0

    def tick(self) -> None:
        now_us = clock.to_us(clock.now())
        for source, target in _ROLLUPS:
            self._roll_up(source, target, now_us)
        times = settings.CONFIG.timings
        _delete_old("instances_sample", now_us, times.sample_retention_s, "step_s = 5 AND ")
        _delete_old("instances_sample", now_us, times.rollup_retention_s, "step_s > 5 AND ")
        _delete_old("instances_hostsample", now_us, times.sample_retention_s)
        _delete_old("instances_requestsample", now_us, times.rollup_retention_s)
        _delete_old("instances_requestoffset", now_us, times.rollup_retention_s)
        self._app_cursor = trim_logs(self._app_cursor, now_us)
        sweep_unknown()

    def _roll_up(self, source: int, target: int, now_us: int) -> None:
        """Every whole step that has passed, a minute late so that slow agents are in it. At most 240 steps a tick."""
        step_us = target * 1_000_000
        end = (now_us - 60_000_000) // step_us * step_us
        start = self._rolled_us.get(target)
        if start is None:
            start = _newest(target, end - 120 * step_us)
        for at in range(start, min(end, start + 240 * step_us), step_us):
            _roll_up_step(source, target, at, at + step_us)
            self._rolled_us[target] = at + step_us
        self._rolled_us.setdefault(target, start)


def _newest(target: int, default_us: int) -> int:
    row = sql.select("SELECT MAX(at_us) FROM instances_sample WHERE step_s = %s AND at_us >= %s", [target, default_us])
    step_us = target * 1_000_000
    return int(row[0][0]) + step_us if row[0][0] is not None else default_us // step_us * step_us


def _roll_up_step(source: int, target: int, start: int, end: int) -> None:
    rows = sql.select(_ROLL_UP, [source, start, end])
    whole = [
        (i, app, cpu, cpu_max, _whole(memory), _whole(memory_max), _whole(rx), _whole(tx), target, start)
        for i, app, cpu, cpu_max, memory, memory_max, rx, tx in rows
    ]
    sql.insert("instances_sample", _COLUMNS, whole, again="ignore")


def _whole(value: object) -> int | None:
    return None if value is None else int(float(str(value)))


def _delete_old(table: str, now_us: int, age_s: float, extra: str = "") -> None:
    oldest = now_us - int(age_s * 1e6)
    while True:
        with transaction.atomic(using=TELEMETRY):
            if sql.is_mysql():
                gone = sql.execute(f"DELETE FROM {table} WHERE {extra}at_us < %s LIMIT {PORTION}", [oldest])  # noqa: S608
            else:
                gone = sql.execute(
                    f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {extra}at_us < %s "  # noqa: S608
                    f"LIMIT {PORTION})",
                    [oldest],
                )
        if gone < PORTION:
            return


def trim_logs(after_app: int, now_us: int) -> int:
    """Logs of the next apps by age and by count; returns the app to go on after (0: from the start)."""
    limits, times = settings.CONFIG.limits, settings.CONFIG.timings
    apps = sql.select(
        "SELECT app_id, SUM(last_seq - first_seq + 1) FROM instances_logoffset WHERE app_id > %s "
        "GROUP BY app_id ORDER BY app_id LIMIT %s",
        [after_app, _APPS_A_TICK],
    )
    oldest = now_us - int(times.log_retention_s * 1e6)
    for app_id, lines in apps:
        bound = oldest
        if int(lines or 0) > limits.log_lines_per_app:
            bound = max(bound, _time_of_nth_newest(int(app_id), limits.log_lines_per_app))
        _trim_app(int(app_id), bound)
    return int(apps[-1][0]) if len(apps) == _APPS_A_TICK else 0


def _time_of_nth_newest(app_id: int, count: int) -> int:
    """An OFFSET scan of the index, once per tick and only for an app whose log is too long."""
    row = sql.select(
        "SELECT at_us FROM instances_logline WHERE app_id = %s ORDER BY app_id DESC, at_us DESC LIMIT 1 OFFSET %s",
        [app_id, count],
    )
    return int(row[0][0]) + 1 if row else 0


def _trim_app(app_id: int, before_us: int) -> None:
    first = sql.select("SELECT MIN(at_us) FROM instances_logline WHERE app_id = %s", [app_id])[0][0]
    if first is None or int(first) >= before_us:
        return
    while True:
        old = sql.select(
            "SELECT instance_id, seq FROM instances_logline WHERE app_id = %s AND at_us < %s "
            "ORDER BY app_id, at_us, instance_id, seq LIMIT %s",
            [app_id, before_us, PORTION],
        )
        last: dict[int, int] = {}
        for instance_id, seq in old:
            last[int(instance_id)] = max(int(seq), last.get(int(instance_id), 0))
        for instance_id, seq in last.items():
            sql.execute("DELETE FROM instances_logline WHERE instance_id = %s AND seq <= %s", [instance_id, seq])
            sql.execute("UPDATE instances_logoffset SET first_seq = %s WHERE instance_id = %s", [seq + 1, instance_id])
        if len(old) < PORTION:
            return


def sweep_unknown() -> int:
    """Telemetry of instances that were purged, however late it came; how many instances."""
    held = {int(row[0]) for row in sql.select("SELECT instance_id FROM instances_logoffset", [])}
    held |= {int(row[0]) for row in sql.select("SELECT instance_id FROM instances_latestsample", [])}
    found: set[int] = set()
    for part in sql.chunks(sorted(held), 5_000):
        found |= set(Instance.objects.filter(id__in=part).values_list("id", flat=True))
    unknown = sorted(held - found)
    if unknown:
        forget_instances(unknown)
        _log.info("telemetry of %d purged instances removed", len(unknown))
    return len(unknown)


def forget_instances(ids: list[int]) -> None:
    """Everything that telemetry holds of these instances."""
    for part in sql.chunks(ids, 500):
        for instance_id in part:
            _delete_lines(instance_id)
        for table in ("instances_sample", "instances_latestsample", "instances_requestsample", "instances_logoffset"):
            sql.execute(f"DELETE FROM {table} WHERE instance_id IN ({sql.marks(part)})", list(part))  # noqa: S608


def forget_app(app_id: int) -> None:
    """What is left of an app: request counts without an instance, and lines that came too late."""
    rows = sql.select("SELECT instance_id FROM instances_logoffset WHERE app_id = %s", [app_id])
    rows += sql.select("SELECT instance_id FROM instances_latestsample WHERE app_id = %s", [app_id])
    forget_instances(sorted({int(row[0]) for row in rows}))
    for table in ("instances_requestsample", "instances_sample", "instances_logline"):
        sql.execute(f"DELETE FROM {table} WHERE app_id = %s", [app_id])  # noqa: S608


def _delete_lines(instance_id: int) -> None:
    """In portions along the clustered key, so that no statement holds its locks for long."""
    while True:
        row = sql.select(
            "SELECT seq FROM instances_logline WHERE instance_id = %s ORDER BY instance_id, seq LIMIT 1 OFFSET %s",
            [instance_id, PORTION],
        )
        if not row:
            sql.execute("DELETE FROM instances_logline WHERE instance_id = %s", [instance_id])
            return
        sql.execute("DELETE FROM instances_logline WHERE instance_id = %s AND seq < %s", [instance_id, row[0][0]])

"""What telemetry forgets and condenses: run by the leader's daemon, in small portions.

Owns `tick`: has samples rolled up (`rolling.py`), removes what is older than configured, trims logs that are too long,
and sweeps what belongs to instances that no longer exist. Never touches a gated table.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from django.conf import settings
from django.db import transaction

from instances.models import Instance
from instances.telemetry import statements as sql
from instances.telemetry.rolling import RollUp
from omni.kernel import clock
from omni.kernel.tables import TELEMETRY

EVERY_S = 60.0
PORTION = 5_000  # rows one statement deletes
_APPS_A_TICK = 500
_MEASURED = {"instances_sample": 5, "instances_hostsample": 5, "instances_requestsample": 5,
             "instances_platformsample": 10}  # fmt: skip
_log = logging.getLogger("omni.retention")


@dataclass(slots=True)
class Retention:
    """Remembers where it is; a new leader starts over."""

    _rolling: RollUp = field(default_factory=RollUp)
    _app_cursor: int = 0

    def tick(self) -> None:
        now_us = clock.to_us(clock.now())
        self._rolling.tick(now_us)
        times = settings.CONFIG.timings
        minutes_s = max(times.minute_retention_s, times.sample_retention_s)
        for table, measured_s in _MEASURED.items():
            kept = ((measured_s, times.sample_retention_s), (60, minutes_s), (600, times.rollup_retention_s))
            for step_s, kept_s in kept:
                _delete_old(table, now_us, kept_s, f"step_s = {step_s} AND ")
        _delete_old("instances_requestoffset", now_us, times.rollup_retention_s)
        self._app_cursor = trim_logs(self._app_cursor, now_us)
        sweep_unknown()


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


def _trim_arrivals(app_id: int, before_us: int) -> None:
    """Batches stored before then: their lines are older still. Numbers ascend with time."""
    while True:
        last = sql.select(
            "SELECT MAX(arrival) FROM (SELECT arrival, at_us FROM instances_logarrival WHERE app_id = %s "
            "ORDER BY app_id, arrival LIMIT %s) AS oldest WHERE at_us < %s",
            [app_id, PORTION, before_us],
        )[0][0]
        if last is None:
            return
        sql.execute("DELETE FROM instances_logarrival WHERE app_id = %s AND arrival <= %s", [app_id, last])


def _trim_app(app_id: int, before_us: int) -> None:
    _trim_arrivals(app_id, before_us)
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
    for table in ("instances_requestsample", "instances_sample", "instances_logline", "instances_logarrival",
                  "instances_logcounter"):  # fmt: skip
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

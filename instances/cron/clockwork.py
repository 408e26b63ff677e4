"""The leader's loop over cron entries: what is due is claimed in the gate, each by itself.

Remembers nothing: the next due time of each entry is in its row, and whoever leads then goes on from there.
"""

from __future__ import annotations

import datetime as dt
import logging

from consensus import gate
from instances.cron import services
from instances.cron.models import CronEntry, CronRun
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.errors import Conflict

EVERY_S = 1.0
_PORTION = 200
_ACTOR = system("cron")
_log = logging.getLogger("omni.cron")


def step() -> float | None:
    """`tick`, and the seconds until the next entry is due (None: no entry is). One query when nothing is due."""
    first = CronEntry.objects.filter(next_due_at__isnull=False, paused=False).order_by("next_due_at")
    at = first.values_list("next_due_at", flat=True).first()
    if (at is not None and at <= clock.now()) or CronRun.objects.filter(status="waiting").exists():
        tick()
        return EVERY_S
    return (at - clock.now()).total_seconds() if at is not None else None


def tick() -> None:
    """Begin what is due, and what has waited for the end of the one before."""
    due = CronEntry.objects.filter(next_due_at__lte=clock.now(), paused=False).order_by("next_due_at", "id")
    for entry_id, name, at in list(due.values_list("id", "name", "next_due_at")[:_PORTION]):
        if at is not None:
            _claim(entry_id, name, at)
    for run_id in list(CronRun.objects.filter(status="waiting").order_by("id").values_list("id", flat=True)[:_PORTION]):
        gate.run(lambda tx, run_id=run_id: services.go_on(tx, run_id), actor=_ACTOR, cause="the one before has ended")  # type: ignore[misc]


def _claim(entry_id: int, name: str, at: dt.datetime) -> None:
    try:
        status, _ = gate.run(
            lambda tx: services.come_due(tx, entry_id, at), actor=_ACTOR, cause=f"cron {name} is due"[:200]
        )
    except Conflict as refused:
        _log.info("cron entry %d (%s): %s", entry_id, name, refused)
        return
    if status is not None:
        _log.info("cron entry %d (%s), due %s: %s", entry_id, name, at.isoformat(), status)


def forget_ended(before: dt.datetime, batch: int) -> int:
    """One batch of history from before that moment; how many."""
    rows = CronRun.objects.filter(created_at__lt=before).exclude(status="waiting")
    ids = list(rows.order_by("id").values_list("id", flat=True)[:batch])
    if not ids:
        return 0

    def verb(tx: gate.Transaction) -> None:
        CronRun.objects.filter(pk__in=ids).delete()
        tx.record("cron.history_forgotten", "platform", 0, change={"count": len(ids)})

    gate.run(verb, actor=_ACTOR, cause="their logs are no longer kept")
    return len(ids)

"""What is forgotten of services: old results of checks, alerts and remedies that are long over, silences that ended.

Owns the pace: small portions, so that no write waits for it.
"""

from __future__ import annotations

import datetime as dt

from django.conf import settings
from django.db import transaction

from consensus import gate
from consensus.gate import Transaction
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.tables import TELEMETRY
from services.models import Alert, RemedyRun, Silence

EVERY_S = 60.0
_PORTION = 5_000
_ROWS = 500


def tick() -> None:
    now = clock.now()
    _forget_spans(clock.to_us(now) - int(settings.CONFIG.timings.check_retention_s * 1e6))
    _forget_rows(now - dt.timedelta(seconds=settings.CONFIG.timings.event_retention_s))


def _forget_spans(oldest_us: int) -> None:
    old = f"FROM services_checkspan WHERE at_us < %s LIMIT {_PORTION}"
    statement = f"DELETE {old}"
    if not sql.is_mysql():
        statement = f"DELETE FROM services_checkspan WHERE rowid IN (SELECT rowid {old})"  # noqa: S608
    while True:
        with transaction.atomic(using=TELEMETRY):
            gone = sql.execute(statement, [oldest_us])
        if gone < _PORTION:
            return


def _forget_rows(before: dt.datetime) -> None:
    """As long as the events that tell of them."""
    alerts = list(Alert.objects.filter(resolved_at__lt=before).values_list("id", flat=True)[:_ROWS])
    runs = list(RemedyRun.objects.filter(finished_at__lt=before).values_list("id", flat=True)[:_ROWS])
    silences = list(Silence.objects.filter(ends_at__lt=before).values_list("id", flat=True)[:_ROWS])
    if not alerts and not runs and not silences:
        return

    def forget(tx: Transaction) -> None:
        Alert.objects.filter(id__in=alerts).delete()
        RemedyRun.objects.filter(id__in=runs).delete()
        Silence.objects.filter(id__in=silences).delete()
        change = {"alerts": len(alerts), "remedies": len(runs), "silences": len(silences)}
        tx.record("retention.applied", "platform", 0, change=change)

    gate.run(forget, actor=system("retention"), cause="retention")

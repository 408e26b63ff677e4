"""The ledger of a deployment: how many requests its app got while it ran, and what became of them.

Owns the period and its sum, from the ingresses' counts, and when the sum is kept for good: counts come in windows and
a moment late, and are not stored for ever. Nobody having counted is `None`, not nought.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db.models import F

from consensus import gate
from consensus.gate import Transaction
from instances.models import Deployment
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.kernel.context import system

AFTER_S = 30.0  # by then the ingresses have counted what ended with the deployment
BATCH = 100
_COUNTS = (
    f"SELECT SUM(requests), SUM(failed), SUM(retried), MIN(at_us - window_s * 1000000), MAX(at_us) "  # noqa: S608
    f"FROM instances_requestsample WHERE {sql.only('app_id')} AND at_us > %s AND at_us - window_s * 1000000 < %s "
    "AND step_s = 5"
)
_ANY = "SELECT 1 FROM instances_requestsample WHERE app_id = %s LIMIT 1"


def due(at: dt.datetime) -> dt.datetime:
    """When the ledger of a deployment that ended `at` can be closed."""
    return at + dt.timedelta(seconds=AFTER_S)


def of(row: Deployment) -> dict[str, Any] | None:
    """As the deployment shows it: what was kept, or what is counted so far."""
    if row.ledger is not None:
        return dict(row.ledger)
    return {**_counted(row.app_id, row.created_at, row.finished_at or clock.now()), "final": False}


def close_due() -> int:
    """Keep the ledgers whose time has come; how many."""
    found_due = Deployment.objects.filter(ledger_due_at__lte=clock.now()).select_related("app")
    rows = list(found_due.order_by("ledger_due_at")[:BATCH])
    if not rows:
        return 0
    found = {row.pk: {**_counted(row.app_id, row.created_at, row.finished_at or clock.now()), "final": True}
             for row in rows}  # fmt: skip

    def verb(tx: Transaction) -> None:
        for row in rows:
            kept = Deployment.objects.filter(pk=row.pk, ledger_due_at=row.ledger_due_at)
            if kept.update(ledger=found[row.pk], ledger_due_at=None, revision=F("revision") + 1):
                tx.record("deployment.ledger_closed", "deployment", row.pk, org_id=row.app.org_id, app_id=row.app_id,
                          change=found[row.pk])  # fmt: skip

    gate.run(verb, actor=system("controller"), cause="the requests of their time are counted")
    return len(rows)


def _counted(app_id: int, since: dt.datetime, until: dt.datetime) -> dict[str, Any]:
    """Over the ingresses' whole windows that the period touches: `since` and `until` say which."""
    begin, end = clock.to_us(since), clock.to_us(until)
    ((requests, failed, retried, first, last),) = sql.select(_COUNTS, [app_id, begin, end])
    if requests is None:
        nothing = 0 if sql.select(_ANY, [app_id]) else None
        requests = failed = retried = nothing
    return {
        "requests": _whole(requests),
        "retried": _whole(retried),
        "failed": _whole(failed),
        "since": clock.rfc3339(clock.from_us(min(begin, int(first)) if first is not None else begin)),
        "until": clock.rfc3339(clock.from_us(max(end, int(last)) if last is not None else end)),
    }


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)

"""What the leader's watch writes: the states of services, the alerts that follow, who is to be told.

Owns those verbs. Each is one gated transaction over many rows; what to write was decided before, by pure functions.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

from django.conf import settings
from django.db.models import F, Q

from consensus.gate import Transaction
from omni.kernel.errors import TransitionRefused
from omni.kernel.transitions import move
from services import representation
from services.alerting import SEVERITIES, Action, Open, Resolve, Severity, Standing, Update
from services.decision import Memory, Votes
from services.models import Alert, Notice, Service, Silence
from services.states import ALERT, LEADER, AlertStatus


@dataclass(frozen=True, slots=True)
class Turned:
    """A service whose state is to be written. `before` is the state that the row has."""

    id: int
    name: str
    before: str
    memory: Memory
    votes: Votes


def write_states(tx: Transaction, turned: Sequence[Turned]) -> None:
    """A service that was removed meanwhile is passed over."""
    for one in turned:
        memory = one.memory
        updated = Service.objects.filter(pk=one.id).update(
            state=memory.state, state_since=dt.datetime.fromtimestamp(memory.since, dt.UTC), reason=memory.reason,
            detail=memory.detail, flapping=memory.flapping, votes=asdict(one.votes),
            memory={"points": memory.points, "points_at": memory.points_at, "seen": memory.seen},
            revision=F("revision") + 1,
        )  # fmt: skip
        if updated:
            change = {"name": one.name, "state": [one.before, memory.state], "detail": memory.detail}
            kind = "service.state_changed" if one.before != memory.state else "service.seen"
            tx.record(kind, "service", one.id, change={**change, "flapping": memory.flapping})


def end_maintenance(tx: Transaction, ids: Sequence[int]) -> None:
    """Of services whose `maintenance_until` has come."""
    for pk in ids:
        rows = Service.objects.filter(pk=pk, maintenance=True, maintenance_until__lte=tx.at)
        name = rows.values_list("name", flat=True).first()
        if rows.update(maintenance=False, maintenance_until=None, revision=F("revision") + 1, updated_at=tx.at):
            tx.record("service.maintenance", "service", pk, change={"name": name, "maintenance": [True, False]})


def standing() -> list[Standing]:
    """The alerts that are not resolved."""
    rows = Alert.objects.exclude(status=AlertStatus.RESOLVED).order_by("id")
    return [Standing(r.pk, r.service_id, _severity(r.severity), r.detail, tuple(r.affected)) for r in rows]


def carry_out(tx: Transaction, actions: Sequence[Action]) -> None:
    """Open first, so that what is grouped finds the alert that speaks for it."""
    for action in actions:
        if isinstance(action, Open):
            _open(tx, action)
    for action in actions:
        if isinstance(action, Update):
            _update(tx, action)
        elif isinstance(action, Resolve):
            _resolve(tx, action)


def announce(tx: Transaction, alert_ids: Sequence[int]) -> None:
    """Have everybody told that these were opened, unless somebody was."""
    for alert in Alert.objects.filter(pk__in=alert_ids):
        tell(tx, alert, "opened")


def unannounced(now: dt.datetime) -> list[int]:
    """Alerts that nobody was told of, although no silence covers them (any more)."""
    if not channels():
        return []
    rows = Alert.objects.exclude(status=AlertStatus.RESOLVED).exclude(notices__kind="opened")
    found = list(rows.values_list("id", "service_name"))
    if not found:
        return []
    quiet = list(active_silences(now))
    return [pk for pk, name in found if not any(representation.covers(one, name) for one in quiet)]


def active_silences(now: dt.datetime) -> list[Silence]:
    return list(Silence.objects.filter(Q(starts_at__lte=now) & Q(ends_at__gt=now)))


def channels() -> list[str]:
    """Over which alerts are told."""
    alerts = settings.CONFIG.alerts
    return [name for name, given in (("webhook", alerts.webhook_url), ("mail", alerts.mail_to)) if given]


def _open(tx: Transaction, action: Open) -> None:
    service = Service.objects.filter(pk=action.service_id).first()
    if service is None or Alert.objects.filter(active_key=service.pk).exists():
        return
    alert = Alert(
        service=service, service_name=service.name, active_key=service.pk, severity=action.severity,
        detail=action.detail, affected=list(action.affected), opened_at=tx.at,
    )  # fmt: skip
    alert.save(force_insert=True)
    change = {"service": service.name, "severity": action.severity, "detail": action.detail,
              "affected": len(action.affected)}  # fmt: skip
    tx.record("alert.opened", "alert", alert.pk, change=change)


def _update(tx: Transaction, action: Update) -> None:
    alert = Alert.objects.exclude(status=AlertStatus.RESOLVED).filter(pk=action.alert_id).first()
    if alert is None:
        return
    Alert.objects.filter(pk=alert.pk).update(
        severity=action.severity, detail=action.detail, affected=list(action.affected), revision=F("revision") + 1
    )
    change = {"service": alert.service_name, "severity": [alert.severity, action.severity], "detail": action.detail,
              "affected": [len(alert.affected), len(action.affected)]}  # fmt: skip
    tx.record("alert.updated", "alert", alert.pk, change=change)
    raised = SEVERITIES.index(action.severity) > SEVERITIES.index(_severity(alert.severity))
    if raised and alert.notices.filter(kind="opened").exists():
        alert.refresh_from_db()
        tell(tx, alert, "raised")


def _resolve(tx: Transaction, action: Resolve) -> None:
    alert = Alert.objects.filter(pk=action.alert_id).first()
    if alert is None:
        return
    under = Alert.objects.filter(active_key=action.under).first() if action.under is not None else None
    if action.why == "grouped" and under is None:
        return  # what is to speak for it waits itself; until then this one speaks
    try:
        move(Alert, alert.pk, table=ALERT, to=AlertStatus.RESOLVED, owner=LEADER, active_key=None, resolved_at=tx.at,
             resolution=action.why, grouped_under=under)  # fmt: skip
    except TransitionRefused:
        return
    tx.record("alert.resolved", "alert", alert.pk, change={"service": alert.service_name, "why": action.why})
    if action.why != "grouped" and alert.notices.filter(kind="opened").exists():
        tell(tx, alert, "resolved")


def tell(tx: Transaction, alert: Alert, kind: str) -> None:
    """Queue what was not queued yet, for every channel."""
    for channel in channels():
        if not Notice.objects.filter(alert=alert, kind=kind, channel=channel).exists():
            notice = Notice(alert=alert, kind=kind, channel=channel, next_at=tx.at, created_at=tx.at)
            notice.save(force_insert=True)
            tx.record("notice.queued", "notice", notice.pk, change={"alert": alert.pk, "kind": kind, "by": channel})


def _severity(text: str) -> Severity:
    return cast(Severity, text)

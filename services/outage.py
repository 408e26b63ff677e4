"""The one alert that cannot wait for the database: that the platform's own database is dead.

Notices of alerts live in the database (`sender`), so this one is told from what the leader's daemon knows without it:
an `Order`, written ahead where it can be read with the database down. Owns what an order says, what is told under it,
and the rows that are written when the database is back, so that nobody is told a second time. Must not read the
database but in `current` and the verb; who keeps the order and whose thread tells is `omni.daemon.alarm`'s business.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from consensus.gate import Transaction
from omni.kernel import clock
from omni.outgoing.webhooks import Outcome
from services import outcomes, representation, sender
from services.models import Alert, Notice, Service
from services.states import AlertStatus, NoticeStatus

SERVICE = "platform:database"
RECORD = f"alarm {SERVICE}"  # its name in the replicated state
# About as long as its check needs to call it failing. A leader that alone cannot reach the database hands over before,
# so what is silent for so long is silent for everybody.
DEAD_S = 10.0
_DETAIL = "the platform's database does not answer; nothing can be changed until it does, what runs goes on running"
_AT_ONCE, _NEVER = "1970-01-01T00:00:00Z", "9999-12-31T00:00:00Z"

State = Literal["armed", "dead"]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done when the database dies. `armed`: tell, but not before `since` (a silence, a maintenance, an
    alert that is open already). `dead`: it is since `since`, and the channels in `told` have been told of it."""

    state: State
    since: str
    service: int
    severity: str = "critical"
    told: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The same for every try, by whichever leader: receivers drop what they have had."""
        return f"alert-database-{int(dt.datetime.fromisoformat(self.since).timestamp() * 1000)}"

    def record(self) -> dict[str, str]:
        """As the replicated state takes it."""
        more = {"service": self.service, "severity": self.severity, "told": list(self.told)}
        return {"state": self.state, "since": self.since, "detail": orjson.dumps(more).decode()}


def of_record(record: Any) -> Order | None:
    """None for what is no order (of another version)."""
    try:
        more = orjson.loads(record["detail"])
        dt.datetime.fromisoformat(record["since"])
        if record["state"] not in ("armed", "dead"):
            return None
        return Order(record["state"], record["since"], int(more["service"]), more["severity"], tuple(more["told"]))
    except (KeyError, TypeError, ValueError):
        return None


def begun(order: Order, silent_s: float, now: dt.datetime) -> Order:
    """The order after the database was silent for so long: `dead` when that is to be told. Pure."""
    if order.state == "dead" or silent_s < DEAD_S or now < dt.datetime.fromisoformat(order.since):
        return order
    since = clock.rfc3339(now - dt.timedelta(seconds=silent_s))
    return replace(order, state="dead", since=str(since), told=())


def tell(order: Order, channel: str) -> Outcome:
    """One try over one channel, as it is configured."""
    alert = Alert(
        service_id=order.service, service_name=SERVICE, severity=order.severity, status=AlertStatus.OPEN,
        detail=_DETAIL, opened_at=dt.datetime.fromisoformat(order.since), told_as=order.key,
    )  # fmt: skip
    return sender.deliver(channel, alert, "opened")


def current() -> Order | None:
    """What is to be done if the database dies from now on, as the database has it. None: it is not watched yet."""
    service = Service.objects.filter(name=SERVICE).first()
    if service is None:
        return None
    if Alert.objects.filter(active_key=service.pk).exists():
        not_before = _NEVER
    elif service.maintenance:
        not_before = clock.rfc3339(service.maintenance_until) or _NEVER
    else:
        ends = [one.ends_at for one in outcomes.active_silences(clock.now()) if representation.covers(one, SERVICE)]
        not_before = clock.rfc3339(max(ends, default=None)) or _AT_ONCE
    return Order("armed", not_before, service.pk, service.severity)


def record_told(tx: Transaction, order: Order) -> None:
    """The alert that was told while nobody could write it down. What was told is not told again; a channel that took
    nothing meanwhile is tried again under the same id. The watch resolves it like any other."""
    if Alert.objects.filter(told_as=order.key).exists():
        return
    alert = Alert.objects.filter(active_key=order.service).first()
    if alert is None:
        service = Service.objects.filter(pk=order.service).first()
        alert = Alert(
            service=service, service_name=SERVICE, active_key=service.pk if service else None,
            severity=order.severity, detail=_DETAIL, opened_at=dt.datetime.fromisoformat(order.since),
            told_as=order.key, status=AlertStatus.OPEN,
        )  # fmt: skip
        alert.save(force_insert=True)
        change = {"service": SERVICE, "severity": order.severity, "detail": _DETAIL, "affected": 0}
        tx.record("alert.opened", "alert", alert.pk, change=change)
    elif alert.notices.filter(kind="opened").exists():
        return
    else:
        Alert.objects.filter(pk=alert.pk).update(told_as=order.key)
    for channel in order.told:
        _sent(tx, alert, channel)
    alert.refresh_from_db()
    outcomes.tell(tx, alert, "opened")


def _sent(tx: Transaction, alert: Alert, channel: str) -> None:
    detail = "told while the database was away"
    notice = Notice(alert=alert, kind="opened", channel=channel, created_at=tx.at, detail=detail, attempts=1,
                    status=NoticeStatus.SENT, finished_at=tx.at)  # fmt: skip
    notice.save(force_insert=True)
    change = {"alert": alert.pk, "kind": "opened", "by": channel, "detail": detail}
    tx.record("notice.sent", "notice", notice.pk, change=change)

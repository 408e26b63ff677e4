"""Notices of alerts, sent: each try follows a committed claim, and its outcome is written. One sender per channel, so
that a mail server that hangs holds up no webhook.

Owns the rows of notices. At least once: a sender that dies between the try and its outcome tries again under the same
id, by which receivers drop the repetition.
"""

from __future__ import annotations

import datetime as dt
import random

from django.conf import settings
from django.db.models import F

from consensus import gate
from consensus.gate import Transaction
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.errors import TransitionRefused
from omni.kernel.transitions import move
from omni.outgoing import mail, webhooks
from omni.outgoing.retries import WEBHOOKS
from omni.outgoing.webhooks import Outcome
from services import representation
from services.models import Alert, Notice
from services.states import NOTICE, SENDER, NoticeStatus

EVERY_S = 1.0
LEASE_S = 60.0  # longer than any try: until then nobody else tries
_A_TICK = 20
_ACTOR = "alerts"


class Sender:
    """Of one channel."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    def tick(self) -> float | None:
        """Try what is due; the seconds until something may be again (None: nothing is to be told)."""
        waiting = Notice.objects.filter(channel=self._channel, next_at__isnull=False).order_by("next_at", "id")
        found, now = list(waiting.select_related("alert")[:_A_TICK]), clock.now()
        for notice in found:
            if notice.next_at is not None and notice.next_at > now:
                break
            if notice.kind == "opened" or not self._earlier(notice):
                self._try(notice)
        return EVERY_S if found else None

    def _earlier(self, notice: Notice) -> bool:
        """What was to be told before is told before."""
        rows = Notice.objects.filter(alert=notice.alert, channel=self._channel, status=NoticeStatus.PENDING)
        return rows.filter(pk__lt=notice.pk).exists()

    def _try(self, notice: Notice) -> None:
        actor, cause = system(_ACTOR), f"notice {notice.pk}"
        claimed, _ = gate.run(lambda tx: claim(tx, notice), actor=actor, cause=cause)
        if not claimed:
            return
        outcome = send(notice)
        gate.run(lambda tx: settle(tx, notice, outcome, random.random()), actor=actor, cause=cause)  # noqa: S311


def claim(tx: Transaction, notice: Notice) -> bool:
    """Nobody else tries until the lease is over."""
    rows = Notice.objects.filter(pk=notice.pk, status=NoticeStatus.PENDING, attempts=notice.attempts)
    if not rows.update(
        attempts=F("attempts") + 1, next_at=tx.at + dt.timedelta(seconds=LEASE_S), revision=F("revision") + 1
    ):
        return False
    notice.attempts += 1
    tx.record("notice.tried", "notice", notice.pk, change={"alert": notice.alert_id, "attempt": notice.attempts})
    return True


def settle(tx: Transaction, notice: Notice, outcome: Outcome, chance: float) -> None:
    """Sent, given up, or to be tried again."""
    pause = None if outcome.final else WEBHOOKS.pause_s(notice.attempts, chance)
    change = {"alert": notice.alert_id, "kind": notice.kind, "by": notice.channel, "detail": outcome.detail}
    if not outcome.delivered and pause is not None:
        rows = Notice.objects.filter(pk=notice.pk, status=NoticeStatus.PENDING)
        rows.update(next_at=tx.at + dt.timedelta(seconds=pause), detail=outcome.detail, revision=F("revision") + 1)
        tx.record("notice.refused", "notice", notice.pk, change=change)
        return
    status = NoticeStatus.SENT if outcome.delivered else NoticeStatus.FAILED
    try:
        move(Notice, notice.pk, table=NOTICE, to=status, owner=SENDER, next_at=None, finished_at=tx.at,
             detail=outcome.detail)  # fmt: skip
    except TransitionRefused:
        return
    tx.record(f"notice.{status}", "notice", notice.pk, change=change)


def send(notice: Notice) -> Outcome:
    """One try over the notice's channel, as it is configured now."""
    return deliver(notice.channel, Alert.objects.get(pk=notice.alert_id), notice.kind)


def deliver(channel: str, alert: Alert, kind: str) -> Outcome:
    """Tell of an alert, which need not be in the database, over one channel. Reads nothing but the configuration."""
    alerts = settings.CONFIG.alerts
    id = f"{representation.key(alert)}-{kind}"
    if channel == "webhook":
        if not alerts.webhook_url:
            return Outcome(False, True, None, "no webhook is configured any more")
        endpoint = webhooks.Endpoint(alerts.webhook_url, alerts.webhook_secret.get_secret_value())
        return webhooks.deliver(endpoint, webhooks.Message(id, f"alert.{kind}", representation.alert(alert)))
    if not alerts.mail_to:
        return Outcome(False, True, None, "no mail address is configured any more")
    server = mail.Server(
        alerts.smtp_host, alerts.smtp_port, alerts.smtp_user, alerts.smtp_password.get_secret_value(),
        alerts.smtp_security,
    )  # fmt: skip
    to = tuple(one.strip() for one in alerts.mail_to.split(",") if one.strip())
    try:
        mail.send(server, mail.Mail(id, alerts.mail_from, to, subject(alert, kind), text(alert)))
    except mail.MailFailed as error:
        return Outcome(False, error.final, None, str(error))
    return Outcome(True, True, None, f"taken by {alerts.smtp_host}")


def subject(alert: Alert, kind: str) -> str:
    return f"[{alert.severity}] {alert.service_name} {'is well again' if kind == 'resolved' else alert.status}"


def text(alert: Alert) -> str:
    lines = [f"{alert.service_name}: {alert.detail}", f"since {clock.rfc3339(alert.opened_at)}"]
    if alert.resolved_at is not None:
        lines.append(f"resolved {clock.rfc3339(alert.resolved_at)} ({alert.resolution})")
    if alert.affected:
        lines.append(f"{len(alert.affected)} services depend on it: {', '.join(alert.affected[:20])}")
    return "\n".join([*lines, "", f"GET /alerts/{alert.pk}" if alert.pk else "GET /cluster/status", ""])

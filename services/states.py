"""The state machines of alerts, notices and remedies, as tables. Pure.

A service's own state is no machine of this kind: it is what its vantage points see (`decision`), and may go anywhere.
"""

from __future__ import annotations

from django.db.models import TextChoices

from omni.kernel.transitions import TransitionTable

LEADER, API, SENDER = "leader", "api", "sender"


class AlertStatus(TextChoices):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


A = AlertStatus
ALERT = TransitionTable(
    noun="alert",
    order=(A.OPEN, A.ACKNOWLEDGED, A.RESOLVED),
    initial=A.OPEN,
    terminal=frozenset({A.RESOLVED}),
    edges={
        (A.OPEN, A.ACKNOWLEDGED): API,
        (A.OPEN, A.RESOLVED): LEADER,
        (A.ACKNOWLEDGED, A.RESOLVED): LEADER,
    },
    shared=frozenset({A.OPEN}),  # somebody acknowledges it, or it resolves itself first
)


class NoticeStatus(TextChoices):
    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


N = NoticeStatus
NOTICE = TransitionTable(
    noun="notice",
    order=(N.PENDING, N.SENT, N.FAILED),
    initial=N.PENDING,
    terminal=frozenset({N.SENT, N.FAILED}),
    edges={(N.PENDING, N.SENT): SENDER, (N.PENDING, N.FAILED): SENDER},
)


class RemedyStatus(TextChoices):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


R = RemedyStatus
REMEDY = TransitionTable(
    noun="remedy",
    order=(R.RUNNING, R.SUCCEEDED, R.FAILED),
    initial=R.RUNNING,
    terminal=frozenset({R.SUCCEEDED, R.FAILED}),
    edges={(R.RUNNING, R.SUCCEEDED): LEADER, (R.RUNNING, R.FAILED): LEADER},
)

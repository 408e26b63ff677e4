"""The state machines of snapshots and of restores, as tables. Pure.

`pending`: the node's agent has not begun. `lost`: nobody knows how far it came; a volume in the middle of a restore is
then as it was or as the snapshot has it, and nothing in between.
"""

from __future__ import annotations

from django.db.models import TextChoices

from omni.kernel.transitions import TransitionTable

API, AGENT, LEADER = "api", "agent", "leader"


class SnapshotStatus(TextChoices):
    PENDING = "pending"
    TAKING = "taking"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    REMOVED = "removed"  # its bytes go, and then the row


class RestoreStatus(TextChoices):
    PENDING = "pending"
    RESTORING = "restoring"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"


S, R = SnapshotStatus, RestoreStatus
TAKING = (S.PENDING, S.TAKING)  # under way
RESTORING = (R.PENDING, R.RESTORING)

SNAPSHOT = TransitionTable(
    noun="snapshot",
    order=(S.PENDING, S.TAKING, S.SUCCEEDED, S.FAILED, S.LOST, S.REMOVED),
    initial=S.PENDING,
    terminal=frozenset({S.REMOVED}),
    shared=frozenset(TAKING),  # the agent does it, people may call it off, the leader gives it up
    edges={
        (S.PENDING, S.TAKING): AGENT,
        (S.TAKING, S.SUCCEEDED): AGENT,
        (S.TAKING, S.FAILED): AGENT,
        (S.PENDING, S.LOST): LEADER,
        (S.TAKING, S.LOST): LEADER,
        # by people, or because newer ones take its place
        (S.PENDING, S.REMOVED): API,
        (S.TAKING, S.REMOVED): API,
        (S.SUCCEEDED, S.REMOVED): API,
        (S.FAILED, S.REMOVED): API,
        (S.LOST, S.REMOVED): API,
    },
)

RESTORE = TransitionTable(
    noun="restore",
    order=(R.PENDING, R.RESTORING, R.SUCCEEDED, R.FAILED, R.LOST),
    initial=R.PENDING,
    terminal=frozenset({R.SUCCEEDED, R.FAILED, R.LOST}),
    shared=frozenset(RESTORING),
    edges={
        (R.PENDING, R.RESTORING): AGENT,
        (R.RESTORING, R.SUCCEEDED): AGENT,
        (R.RESTORING, R.FAILED): AGENT,
        (R.PENDING, R.LOST): LEADER,
        (R.RESTORING, R.LOST): LEADER,
    },
)

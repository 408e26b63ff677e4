"""The build's state machine, as a table. Pure.

queued → building → succeeded | failed | cancelled; a building one whose lease expired is lost and queued again, a
bounded number of times.
"""

from __future__ import annotations

from django.db.models import TextChoices

from omni.kernel.transitions import TransitionTable

WORKER, LEADER, API = "worker", "leader", "api"


class BuildStatus(TextChoices):
    QUEUED = "queued"
    BUILDING = "building"
    LOST = "lost"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


S = BuildStatus
BUILD = TransitionTable(
    noun="build",
    order=(S.QUEUED, S.BUILDING, S.LOST, S.SUCCEEDED, S.FAILED, S.CANCELLED),
    initial=S.QUEUED,
    terminal=frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED}),
    edges={
        (S.QUEUED, S.BUILDING): WORKER,
        (S.QUEUED, S.CANCELLED): API,
        (S.BUILDING, S.SUCCEEDED): WORKER,
        (S.BUILDING, S.FAILED): WORKER,
        (S.BUILDING, S.CANCELLED): WORKER,
        (S.BUILDING, S.LOST): LEADER,
        (S.LOST, S.QUEUED): LEADER,
        (S.LOST, S.FAILED): LEADER,
        (S.LOST, S.CANCELLED): LEADER,
    },
    backward=frozenset({(S.LOST, S.QUEUED)}),  # a retry: the same build, the next attempt
    shared=frozenset({S.QUEUED, S.BUILDING}),  # cancel and lost, by name (STYLE 3.3)
)

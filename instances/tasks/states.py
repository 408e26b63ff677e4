"""The state machine of tasks, as a table. Pure.

The leader alone moves a task: people ask for an end (`stop_code`), and what the agents say is on the task's instance.
"""

from __future__ import annotations

from django.db.models import TextChoices

from omni.kernel.transitions import TransitionTable

LEADER = "leader"


class TaskStatus(TextChoices):
    QUEUED = "queued"
    PLACED = "placed"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"


T = TaskStatus
ACTIVE = frozenset({T.QUEUED, T.PLACED, T.RUNNING, T.STOPPING})
ENDS = (T.SUCCEEDED, T.FAILED, T.CANCELLED, T.TIMED_OUT, T.LOST)
ENDED = frozenset(ENDS)

TASK = TransitionTable(
    noun="task",
    order=(T.QUEUED, T.PLACED, T.RUNNING, T.STOPPING, *ENDS),
    initial=T.QUEUED,
    terminal=ENDED,
    edges={
        (T.QUEUED, T.PLACED): LEADER,
        (T.QUEUED, T.FAILED): LEADER,  # no node took it in time
        (T.QUEUED, T.CANCELLED): LEADER,
        (T.PLACED, T.RUNNING): LEADER,
        (T.PLACED, T.STOPPING): LEADER,
        (T.RUNNING, T.STOPPING): LEADER,
        # an agent reports in batches: a short command has ended before it was seen to run
        (T.PLACED, T.SUCCEEDED): LEADER,
        (T.PLACED, T.FAILED): LEADER,
        (T.PLACED, T.LOST): LEADER,
        (T.RUNNING, T.SUCCEEDED): LEADER,
        (T.RUNNING, T.FAILED): LEADER,
        (T.RUNNING, T.LOST): LEADER,
        (T.STOPPING, T.FAILED): LEADER,
        (T.STOPPING, T.CANCELLED): LEADER,
        (T.STOPPING, T.TIMED_OUT): LEADER,
        (T.STOPPING, T.LOST): LEADER,
    },
)

"""The state machine of sessions, as a table. Pure.

`open`: asked for, nobody has come with its ticket yet. `attached`: somebody waits at a member, the agent is to come.
"""

from __future__ import annotations

from django.db.models import TextChoices

from omni.kernel.transitions import TransitionTable

MEMBER, AGENT, LEADER = "member", "agent", "leader"


class SessionStatus(TextChoices):
    OPEN = "open"
    ATTACHED = "attached"
    RUNNING = "running"
    EXPIRED = "expired"
    ENDED = "ended"
    LOST = "lost"


S = SessionStatus
LIVE = frozenset({S.OPEN, S.ATTACHED, S.RUNNING})
LISTED = (S.ATTACHED, S.RUNNING)  # what its node's agent is told of

SESSION = TransitionTable(
    noun="session",
    order=(S.OPEN, S.ATTACHED, S.RUNNING, S.EXPIRED, S.ENDED, S.LOST),
    initial=S.OPEN,
    terminal=frozenset({S.EXPIRED, S.ENDED, S.LOST}),
    shared=LIVE,  # whoever does his part, and the leader when nobody does
    edges={
        (S.OPEN, S.ATTACHED): MEMBER,
        (S.OPEN, S.EXPIRED): LEADER,
        (S.ATTACHED, S.RUNNING): AGENT,
        (S.ATTACHED, S.ENDED): AGENT,  # refused, or over before it was told that it runs
        (S.ATTACHED, S.LOST): LEADER,
        (S.RUNNING, S.ENDED): AGENT,
        (S.RUNNING, S.LOST): LEADER,
    },
)

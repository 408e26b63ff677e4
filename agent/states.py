"""Which status of an instance may follow which, and who writes it.

Owns the table and the check, nothing else. The one way back is `running -> crashed -> starting` (and its short form
`running -> starting`, a restart that somebody asked for): the agent restarts in place, under the same id.
"""

from __future__ import annotations

from typing import Literal

from agent.protocol import Status

Owner = Literal["leader", "agent"]

TRANSITIONS: dict[tuple[Status, Status], Owner] = {
    ("pending", "placed"): "leader",
    ("placed", "starting"): "agent",
    ("placed", "stopped"): "agent",  # told to stop before it was started
    ("placed", "failed"): "agent",  # the runtime refused it
    ("starting", "running"): "agent",  # first healthy probe of this process
    ("starting", "crashed"): "agent",
    ("starting", "failed"): "agent",  # third exit before it was ever healthy, or refused
    ("starting", "stopping"): "agent",
    ("starting", "stopped"): "agent",  # ended by itself and the restart policy is content
    ("running", "crashed"): "agent",
    ("running", "starting"): "agent",  # restart in place that was asked for
    ("running", "stopping"): "agent",
    ("running", "stopped"): "agent",
    ("running", "failed"): "agent",
    ("crashed", "starting"): "agent",
    ("crashed", "stopped"): "agent",
    ("crashed", "failed"): "agent",
    ("stopping", "stopped"): "agent",
}

TERMINAL: frozenset[Status] = frozenset({"stopped", "failed", "lost"})


class TransitionRefused(Exception):
    """A step that the table does not have: a fault in our own code, never a user's."""


def check(before: Status, after: Status) -> None:
    """Raise TransitionRefused unless the agent may go from `before` to `after` (staying is always allowed)."""
    if before != after and TRANSITIONS.get((before, after)) != "agent":
        raise TransitionRefused(f"an instance does not go from {before} to {after}")

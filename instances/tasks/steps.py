"""What is next for one task. Pure: the task, its instance as it is seen, and the time, to one step with its reason.

Owns the rules. A task that was begun once is never begun again: whatever becomes of its instance is its end.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from instances.tasks.states import TaskStatus

START_S = 600.0  # a task that nothing started for so long has failed
_BEGUN = frozenset({"running", "crashed", "stopping"})


@dataclass(frozen=True, slots=True)
class TaskView:
    status: str
    start_by: dt.datetime
    stop_by: dt.datetime | None = None
    stop_code: str = ""
    timeout_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The task's instance: what its agent said last."""

    status: str
    desired: str = "run"
    detail: str = ""
    last_exit: Mapping[str, Any] | None = None
    begun: bool = False  # its process was started


@dataclass(frozen=True, slots=True)
class Place:
    why: str = "a node is wanted"


@dataclass(frozen=True, slots=True)
class Run:
    """Its process was started: from now on its time runs."""

    stop_by: dt.datetime
    why: str = "its process was started"


@dataclass(frozen=True, slots=True)
class Stop:
    code: str
    why: str


@dataclass(frozen=True, slots=True)
class End:
    status: str
    why: str
    error_code: str = ""
    exit_code: int | None = None
    exit_signal: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wait:
    """Until something happens, or until then."""

    until: dt.datetime | None = None


Step = Place | Run | Stop | End | Wait


def step(task: TaskView, seen: Seen | None, now: dt.datetime) -> Step:
    if task.status == TaskStatus.QUEUED or seen is None:
        return _unplaced(task, seen, now)
    if seen.status in ("stopped", "failed", "lost"):
        return _ended(task, seen)
    if task.status == TaskStatus.STOPPING:
        return Wait()
    if task.stop_code:
        return Stop(task.stop_code, "cancelled")
    if task.status == TaskStatus.PLACED:
        if seen.begun or seen.status in _BEGUN:
            return Run(now + dt.timedelta(seconds=task.timeout_s))
        if now >= task.start_by:
            return Stop("not_started", f"not started in time: {seen.detail or 'its node said nothing of it'}")
        return Wait(task.start_by)
    if task.stop_by is not None and now >= task.stop_by:
        return Stop("timed_out", f"still running after {task.timeout_s:g} s")
    return Wait(task.stop_by)


def _unplaced(task: TaskView, seen: Seen | None, now: dt.datetime) -> Step:
    if task.status != TaskStatus.QUEUED:  # its instance's row is gone
        return End(TaskStatus.LOST, "nothing is known of its instance any more", "instance_lost")
    if task.stop_code:
        return End(TaskStatus.CANCELLED, "cancelled before it was placed", task.stop_code)
    if now >= task.start_by:
        return End(TaskStatus.FAILED, "no node took it in time", "no_room")
    return Place()


def _ended(task: TaskView, seen: Seen) -> End:
    last = seen.last_exit or {}
    code, signal = last.get("code"), last.get("signal")
    evidence = {"last_exit": seen.last_exit, "detail": seen.detail} if seen.last_exit else {"detail": seen.detail}
    if seen.status == "lost":
        return End(TaskStatus.LOST, seen.detail or "its node was lost", "node_lost", evidence=evidence)
    if task.status == TaskStatus.STOPPING:
        to = {"timed_out": TaskStatus.TIMED_OUT, "cancelled": TaskStatus.CANCELLED}.get(task.stop_code)
        why = {"timed_out": f"ended after {task.timeout_s:g} s", "cancelled": "cancelled"}.get(task.stop_code)
        return End(to or TaskStatus.FAILED, why or "not started in time", task.stop_code, code, signal, evidence)
    if code == 0:
        return End(TaskStatus.SUCCEEDED, "exited with code 0", "", 0, None, evidence)
    if last.get("oom"):
        why, error = "killed for want of memory", "out_of_memory"
    elif signal is not None:
        why, error = f"ended by signal {signal}", "killed"
    elif code is not None:
        why, error = f"exited with code {code}", "exit_code"
    else:
        why, error = seen.detail or "ended unseen", "not_run" if seen.last_exit is None else "ended_unseen"
    return End(TaskStatus.FAILED, why, error, code, signal, evidence)

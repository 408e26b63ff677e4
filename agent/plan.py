"""What to do next with one instance.

Pure: `decide` looks at the record, at what is known of its process and at the time, and names one action with its
reason. The rules stand in order and the first that speaks wins. `agent.instance` carries the action out and asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agent.record import Record

LEASE_LOOK_S = 0.2
LOG_PATIENCE_S = 120.0  # how long the directory of a removed instance is kept for the sake of its log

Process = Literal["none", "running", "ended"]
Kind = Literal["start", "drain", "terminate", "kill", "record_end", "finish", "delete", "wait"]


@dataclass(frozen=True, slots=True)
class Situation:
    """`process`: none (no handle), running, or ended (its end is not yet in the record). `leased`: a
    singleton may run."""

    record: Record
    process: Process
    log_done: bool
    now: float
    leased: bool = True


@dataclass(frozen=True, slots=True)
class Action:
    """`until`: when to ask again although nothing happened (for `wait`); None = only when something happens."""

    kind: Kind
    reason: str
    until: float | None = None


def decide(situation: Situation) -> Action:
    for rule in RULES:
        action = rule(situation)
        if action is not None:
            return action
    raise AssertionError("the last rule always answers")


def _end_is_written_first(it: Situation) -> Action | None:
    """Whatever is wanted: an end that was seen goes into the record before anything else."""
    if it.process == "ended":
        return Action("record_end", "its process ended")
    return None


def _unwanted_process_is_led_out(it: Situation) -> Action | None:
    """A process that is to go: drain, TERM, wait, KILL, in this order, each once."""
    record = it.record
    if it.process != "running" or not (_unwanted(record) or record.leaving):
        return None
    if record.drain_until is None:
        return Action("drain", "no longer wanted" if record.assignment.desired != "run" else "restart asked for")
    until = record.drain_least if record.assignment.drained and record.drain_least else record.drain_until
    if it.now < until:
        return Action("wait", "draining", until)
    if record.kill_at is None:
        return Action("terminate", "drained")
    if it.now < record.kill_at:
        return Action("wait", "given time to end", record.kill_at)
    return Action("kill", f"still there {record.assignment.stop_timeout_s:g} s after SIGTERM")


def _running_is_left_alone(it: Situation) -> Action | None:
    if it.process == "running":
        return Action("wait", "running")
    return None


def _removed_when_its_log_is_safe(it: Situation) -> Action | None:
    """Stopped for good: the directory goes once nobody needs it."""
    record = it.record
    if not record.terminal or record.assignment.desired != "remove":
        return None
    if it.log_done or record.orphan:
        return Action("delete", "removed")
    patience = (record.ended_at if record.ended_at is not None else it.now) + LOG_PATIENCE_S
    if it.now >= patience:
        return Action("delete", "removed; nobody took the rest of its log")
    return Action("wait", "its log is not yet acknowledged", patience)


def _terminal_stays(it: Situation) -> Action | None:
    if it.record.terminal:
        return Action("wait", f"{it.record.observed.status} for good")
    return None


def _unwanted_without_process_is_stopped(it: Situation) -> Action | None:
    if it.record.assignment.desired != "run":
        return Action("finish", "not wanted and not running")
    return None


def _asked_restart_does_not_wait(it: Situation) -> Action | None:
    """A restart asked for ends the back-off of a crash (not the wait for something that start needs)."""
    record = it.record
    if (
        record.observed.status == "crashed"
        and record.delays == 0
        and record.assignment.generation > record.observed.generation
    ):
        return Action("start", "restart asked for")
    return None


def _singleton_waits_for_its_lease(it: Situation) -> Action | None:
    if it.record.assignment.singleton and not it.leased:
        return Action("wait", "its node has no lease", it.now + LEASE_LOOK_S)
    return None


def _start_when_due(it: Situation) -> Action:
    due = it.record.next_start
    if due is not None and it.now < due:
        return Action("wait", "backing off", due)
    return Action("start", "wanted and not running")


def _unwanted(record: Record) -> bool:
    wished = record.assignment
    return wished.desired != "run" or (wished.generation > record.observed.generation and not wished.once)


RULES: tuple[Callable[[Situation], Action | None], ...] = (
    _end_is_written_first,
    _unwanted_process_is_led_out,
    _running_is_left_alone,
    _removed_when_its_log_is_safe,
    _terminal_stays,
    _unwanted_without_process_is_stopped,
    _singleton_waits_for_its_lease,
    _asked_restart_does_not_wait,
    _start_when_due,
)

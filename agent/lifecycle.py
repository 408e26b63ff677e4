"""What each thing that happens to an instance makes of its record.

Pure: the time and the random part are handed in, the record that comes back is the whole effect. `agent.plan` decides
what to do next, `agent.instance` does it and calls these.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from agent import backoff
from agent.health import HealthState
from agent.protocol import Assignment, Exit, Probe, Status
from agent.record import Leaving, Record, observe

EARLY_EXITS = 3  # ends before the first healthy moment that make an instance failed (DECISIONS 19)
HEALTHY_RESET_S = 60.0  # a process that was healthy this long has paid for its earlier crashes
FIRST_CRASH_S = 0.2  # before the next start of one that was healthy: most crashes do not come again at once


def assigned(record: Record, assignment: Assignment) -> Record:
    """The control plane's wish, as last heard. A wish to end cannot be taken back (states never move back)."""
    if record.assignment.desired != "run" and assignment.desired == "run":
        assignment = replace(assignment, desired=record.assignment.desired)
    if record.assignment.desired == "remove" and assignment.desired == "stop":
        assignment = replace(assignment, desired="remove")
    return replace(record, assignment=assignment, orphan=False)


def orphaned(record: Record) -> Record:
    """No list has it any more: end it and forget it."""
    return replace(record, assignment=replace(record.assignment, desired="remove"), orphan=True)


def rebooted(record: Record, boot_id: str) -> Record:
    """Deadlines of another boot mean nothing: whatever was waited for is due now."""
    if record.boot_id == boot_id:
        return record
    return replace(
        interrupted(record),
        boot_id=boot_id,
        started=None,
        healthy_since=None,
        drain_least=None,
        drain_until=None,
        kill_at=None,
        next_start=None,
        ended_at=None,
    )


def interrupted(record: Record) -> Record:
    """Its process was ended from outside, with the platform or the host: no crash, it starts again at once (but for
    what runs once)."""
    if record.handle is None or record.leaving or record.assignment.desired != "run" or record.assignment.once:
        return record
    return replace(record, leaving="restart", drain_until=None, kill_at=None)


def drained_from(record: Record, now: float) -> Record:
    """The process is to end: give every ingress time to drop the address, and open requests time to end."""
    leaving: Leaving = "stop" if record.assignment.desired != "run" else "restart"
    routed = record.observed.status == "running" and record.observed.address is not None
    wait = record.assignment.drain_s if routed else 0.0
    longest = max(wait, record.assignment.drain_max_s) if routed else 0.0
    record = replace(record, leaving=leaving, drain_least=now + wait, drain_until=now + longest)
    detail = "leaving the ingress" if wait else "stopping"
    if leaving == "stop":
        return observe(record, status="stopping", draining=wait > 0, detail=detail)
    return observe(record, draining=True, detail="restarting")


def terminated(record: Record, now: float) -> Record:
    """SIGTERM is out; from here the process has `stop_timeout_s`."""
    record = replace(record, kill_at=now + record.assignment.stop_timeout_s)
    if record.leaving == "stop":
        return observe(record, draining=False, detail="stopping")
    return record


def starting(record: Record, port: int, address: str, log_start: tuple[int, int] = (0, 0)) -> Record:
    """Intent to start, written before anything runs."""
    record = replace(
        record, port=port, leaving="", drain_until=None, kill_at=None, next_start=None, log_start=log_start
    )
    return observe(
        record,
        status="starting",
        health="starting",
        generation=record.assignment.generation,
        address=address,
        next_start_at=None,
        last_probe=None,
        draining=False,
        detail="starting",
    )


def started(record: Record, handle: dict[str, object], now: float, at: str) -> Record:
    again = record.observed.started_at is not None
    record = replace(record, handle=handle, started=now, healthy_since=None, delays=0)
    restarts = record.observed.restarts + (1 if again else 0)
    return observe(record, handle=dict(handle), started_at=at, restarts=restarts)


def located(record: Record, address: str, place: str = "") -> Record:
    """Where the ingress finds it, known once it runs; its handle as told names the `place` when that is no node of
    ours."""
    handle = {**(record.handle or {}), **({"place": place} if place else {})}
    return record if record.leaving else observe(record, address=address, handle=handle)


def refused(record: Record, why: str) -> Record:
    """The runtime will never start this: no retry."""
    record = replace(record, handle=None, next_start=None)
    return observe(record, status="failed", health="unknown", address=None, next_start_at=None, detail=why)


def delayed(record: Record, why: str, now: float, jitter: float) -> Record:
    """The runtime cannot start it at the moment: same status, later."""
    tries = record.delays + 1
    wait = backoff.delay(tries, jitter, longest=30.0)
    return observe(replace(record, delays=tries, next_start=now + wait), detail=f"waiting to start: {why}")


def probed(record: Record, state: HealthState, probe: Probe, now: float) -> Record:
    """A health check was answered. Only what is new for somebody makes a report: the time of a probe is not."""
    last = record.observed.last_probe
    if last is not None and (last.ok, last.detail) == (probe.ok, probe.detail):
        probe = last
    if record.leaving:
        return record
    if state.health == "healthy":
        since = now if record.healthy_since is None else record.healthy_since
        record = replace(record, healthy_since=since, ever_healthy=True)
        return observe(record, status="running", health="healthy", last_probe=probe, detail="")
    record = replace(record, healthy_since=None) if state.health == "unhealthy" else record
    return observe(record, health=state.health, last_probe=probe, detail=_complaint(record, state, probe))


def _complaint(record: Record, state: HealthState, probe: Probe) -> str:
    if state.health != "unhealthy":
        return record.observed.detail
    if state.ever:
        return f"failing its health check: {probe.detail}"
    period = record.assignment.health_check.start_period_s
    return f"not healthy within {period:g} s of its start: {probe.detail}"


def ended(record: Record, exit_: Exit, now: float, jitter: float) -> Record:
    """The process is gone and nothing of its tree is left; `exit_.at` is this moment."""
    leaving, was_healthy_since = record.leaving, record.healthy_since
    record = replace(record, handle=None, past_handle=record.handle, started=None, healthy_since=None)
    record = replace(record, leaving="", drain_until=None, kill_at=None, ended_at=now)
    record = observe(record, last_exit=exit_, health="unknown", handle={}, draining=False)
    if leaving == "stop" or record.assignment.desired != "run":
        return observe(record, status="stopped", address=None, detail="stopped")
    if leaving == "restart":
        return observe(replace(record, failures=0, next_start=None), status="starting", detail="restarting")
    if record.ever_healthy:
        record = observe(record, crashes=record.observed.crashes + 1)
    if record.assignment.restart_policy != "always":
        content = exit_.code == 0
        if content or record.assignment.restart_policy == "never":
            status: Status = "stopped" if content else "failed"
            detail = f"{describe(exit_)}; restart policy {record.assignment.restart_policy}"
            return observe(record, status=status, address=None, detail=detail)
    return _crashed(record, exit_, was_healthy_since, now, jitter)


def _crashed(record: Record, exit_: Exit, healthy_since: float | None, now: float, jitter: float) -> Record:
    early = record.early_exits + (0 if record.ever_healthy else 1)
    paid = healthy_since is not None and now - healthy_since >= HEALTHY_RESET_S
    failures = 1 if paid else record.failures + 1
    record = replace(record, early_exits=early, failures=failures)
    if not record.ever_healthy and early >= EARLY_EXITS:
        detail = f"{describe(exit_)}: ended {early} times before it was ever healthy"
        return observe(record, status="failed", address=None, detail=detail)
    first = failures == 1 and healthy_since is not None
    wait = FIRST_CRASH_S if first else backoff.delay(failures, jitter)
    record = replace(record, next_start=now + wait)
    next_start_at = later(exit_.at, wait)
    detail = f"{describe(exit_)}; next start {'at once' if first else f'in {wait:.0f} s'}"
    return observe(record, status="crashed", next_start_at=next_start_at, detail=detail)


def later(at: str, seconds: float) -> str:
    """The RFC 3339 time `seconds` after `at`."""
    moment = datetime.fromisoformat(at.replace("Z", "+00:00")) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stopped(record: Record) -> Record:
    """There is nothing that runs, and nothing shall."""
    record = replace(record, handle=None, next_start=None)
    return observe(record, status="stopped", health="unknown", address=None, next_start_at=None, detail="stopped")


def describe(exit_: Exit) -> str:
    """How it ended, in words."""
    if exit_.oom:
        return "killed for want of memory"
    if exit_.signal is not None:
        return f"ended by signal {exit_.signal}"
    if exit_.code is not None:
        return f"exited with code {exit_.code}"
    return "ended unseen"

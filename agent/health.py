"""What a row of probe results says about an instance.

Pure: no clock, no network (`agent.probes` asks the questions). One state per process; it starts anew with each start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from agent.protocol import Health, HealthCheck

STARTING_INTERVAL_S = 0.25
FIRST_INTERVAL_S = 0.05  # a closed port costs nothing to ask, and most programs listen within a moment
FIRST_S = 2.0
_PATIENCE = 8  # so much longer than the pause between two questions it has taken already: fewer where all are slow


@dataclass(frozen=True, slots=True)
class HealthState:
    """`ever`: this process has been healthy before."""

    health: Health = "starting"
    ever: bool = False
    successes: int = 0
    failures: int = 0


def step(state: HealthState, check: HealthCheck, ok: bool, since_start: float) -> HealthState:
    """The state after one more probe, `since_start` seconds after the process was started.

    Becomes healthy after `healthy_threshold` good probes in a row, unhealthy after `unhealthy_threshold` bad ones;
    before the first good spell bad probes count only once the start period is over.
    """
    if ok:
        state = replace(state, successes=state.successes + 1, failures=0)
        if state.successes >= max(1, check.healthy_threshold):
            return replace(state, health="healthy", ever=True)
        return state
    state = replace(state, successes=0, failures=state.failures + 1)
    too_many = state.failures >= max(1, check.unhealthy_threshold)
    bad = too_many if state.ever else since_start >= check.start_period_s
    return replace(state, health="unhealthy") if bad else state


def pause(state: HealthState, check: HealthCheck, since_start: float, closed: bool = False) -> float:
    """Seconds until the next probe: quick while a new process is awaited, the check's interval otherwise.

    `closed`: where it is to listen is known, and nothing listened there yet.
    """
    if state.ever or since_start >= check.start_period_s:
        return check.interval_s
    first = (check.type == "tcp" or closed) and since_start < FIRST_S
    soon = max(FIRST_INTERVAL_S, since_start / _PATIENCE)
    return min(soon if first else STARTING_INTERVAL_S, check.interval_s)

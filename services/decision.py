"""What the leader concludes about a service from what its vantage points say. Pure: no clock, no database.

Owns the states, the majority rule, and the damping of flapping. One node's broken network is no outage: a minority
that fails makes a service degraded, never unhealthy. What cannot be known is unknown, and only after a while.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

State = Literal["healthy", "degraded", "unhealthy", "unknown", "maintenance"]
Verdict = Literal["passing", "warning", "failing", "unknown"]
STATES: tuple[State, ...] = ("healthy", "degraded", "unhealthy", "unknown", "maintenance")

_DETAIL = 300


@dataclass(frozen=True, slots=True)
class Reading:
    """One vantage point's verdict, after its own thresholds. `node` says where it stands."""

    node: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Votes:
    """How many vantage points say what; `unknown` are those that were to look and said nothing."""

    passing: int = 0
    warning: int = 0
    failing: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Assessment:
    """`reason`: passing, warning, minority, split, failing, starting, silent, maintenance, flapping."""

    state: State
    reason: str
    detail: str
    votes: Votes


def assess(
    expected: int, readings: Iterable[Reading], *, maintenance: bool = False, starting: bool = False
) -> Assessment:
    """The state that a majority of the `expected` vantage points sees.

    While `starting`, a failing vantage point counts as one that does not know yet.
    """
    told = list(readings)
    count = Counter(reading.verdict for reading in told)
    failing, early = (0, count["failing"]) if starting else (count["failing"], 0)
    size = max(expected, len(told))
    votes = Votes(count["passing"], count["warning"], failing, size - count["passing"] - count["warning"] - failing)
    if maintenance:
        return Assessment("maintenance", "maintenance", "under maintenance", votes)
    up, known = votes.passing + votes.warning, size - votes.unknown
    if size == 0 or known == 0:
        why = "within its start period" if early else "no vantage point has looked yet"
        return Assessment("unknown", "starting" if early else "silent", why, votes)
    if 2 * failing > size:
        return Assessment("unhealthy", "failing", _said(told, "failing", f"{failing} of {size}"), votes)
    if 2 * up > size:
        if failing:
            return Assessment("degraded", "minority", _said(told, "failing", f"{failing} of {size}"), votes)
        if votes.warning:
            return Assessment("degraded", "warning", _said(told, "warning", f"{votes.warning} of {size}"), votes)
        return Assessment("healthy", "passing", _said(told, "passing", f"{votes.passing} of {size}"), votes)
    if failing and up:
        return Assessment("degraded", "split", _said(told, "failing", f"{failing} of {size}"), votes)
    return Assessment("unknown", "silent", f"{votes.unknown} of {size} vantage points are silent", votes)


def _said(readings: list[Reading], verdict: Verdict, count: str) -> str:
    """What the vantage points with that verdict say, the most frequent first."""
    said = Counter(reading.detail for reading in readings if reading.verdict == verdict and reading.detail)
    if not said:
        return f"{verdict} at {count}"
    text = min(said, key=lambda detail: (-said[detail], detail))
    return f"{verdict} at {count}: {text}"[:_DETAIL]


@dataclass(frozen=True, slots=True)
class Damping:
    """Each change counts one point, and the points halve every `half_life_s`. From `start` points on the service is
    flapping, until they are `end`. `unknown_after_s`: how long nobody may know before it is said. Seconds."""

    half_life_s: float = 120.0
    start: float = 4.0
    end: float = 1.5
    unknown_after_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of a service between two looks. `seen` is the last state that was not a guess: healthy,
    degraded or unhealthy as assessed; times are seconds since the epoch."""

    state: State = "unknown"
    since: float = 0.0
    reason: str = "silent"
    detail: str = ""
    flapping: bool = False
    points: float = 0.0
    points_at: float = 0.0
    seen: State | None = None
    unknown_since: float | None = None


def remember(memory: Memory, found: Assessment, now: float, damping: Damping = Damping()) -> Memory:
    """The memory after one more look."""
    points = _left(memory, now, damping)
    if found.state == "maintenance":
        return _turned(replace(memory, flapping=False, points=0.0, points_at=now, seen=None, unknown_since=None),
                       found.state, found.reason, found.detail, now)  # fmt: skip
    if found.state == "unknown":
        since = memory.unknown_since if memory.unknown_since is not None else now
        waiting = replace(memory, unknown_since=since)
        if memory.state in ("healthy", "degraded", "unhealthy") and now - since < damping.unknown_after_s:
            return waiting
        return _turned(replace(waiting, flapping=False), found.state, found.reason, found.detail, now)
    if memory.seen is not None and found.state != memory.seen:
        points += 1.0
    flapping = points >= damping.start or (memory.flapping and points > damping.end)
    after = replace(memory, flapping=flapping, points=points, points_at=now, seen=found.state, unknown_since=None)
    if flapping:
        return _turned(after, "degraded", "flapping", f"changes all the time; now {found.detail}"[:_DETAIL], now)
    return _turned(after, found.state, found.reason, found.detail, now)


def _left(memory: Memory, now: float, damping: Damping) -> float:
    """The points that time has left; a clock that was put back takes none away and adds none."""
    age = max(0.0, now - memory.points_at)
    return memory.points * math.pow(0.5, age / damping.half_life_s)


def _turned(memory: Memory, state: State, reason: str, detail: str, now: float) -> Memory:
    since = memory.since if memory.state == state else now
    return replace(memory, state=state, since=since, reason=reason, detail=detail)

"""When a service is to be mended: pure.

Owns the bounds: never two at once, never for a service whose trouble another one speaks for, never more than so many in
an hour, and after each try that did not help a pause twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HOUR_S = 3600.0
LONGEST_PAUSE_S = 6 * HOUR_S


@dataclass(frozen=True, slots=True)
class Bounds:
    after_s: float = 0.0
    backoff_s: float = 60.0
    max_per_hour: int = 3


@dataclass(frozen=True, slots=True)
class Patient:
    """An unhealthy service. `since`: when it became so; `runs`: when earlier tries began, and `ended` the last one
    ended; seconds since the epoch. `speaks`: it has an alert of its own."""

    since: float
    speaks: bool
    running: bool
    runs: Sequence[float] = ()
    ended: float = 0.0


def why_not(patient: Patient, bounds: Bounds, now: float) -> str:
    """Why nothing is to be done now; empty when it is time."""
    if patient.running:
        return "a try is under way"
    if not patient.speaks:
        return "a service that it depends on is the cause"
    if now - patient.since < bounds.after_s:
        return f"unhealthy for less than {bounds.after_s:g} s"
    if sum(1 for begun in patient.runs if now - begun < HOUR_S) >= bounds.max_per_hour:
        return f"{bounds.max_per_hour} tries within an hour"
    in_vain = sum(1 for begun in patient.runs if begun >= patient.since)
    if in_vain:
        pause = min(bounds.backoff_s * 2.0 ** min(in_vain - 1, 30), LONGEST_PAUSE_S)
        if now - patient.ended < pause:
            return f"{in_vain} tries did not help; the next one follows after {pause:g} s"
    return ""

"""From single outcomes to a verdict: so many in a row, as the service's thresholds say. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.checks.messages import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Streak:
    """`run` outcomes in a row were good (positive) or bad (negative)."""

    verdict: Verdict = "unknown"
    run: int = 0


def after(streak: Streak, outcome: Outcome, healthy_threshold: int, unhealthy_threshold: int) -> Streak:
    """The streak after one more outcome. A warning is a good outcome that says so at once."""
    good = outcome != "failing"
    run = max(streak.run, 0) + 1 if good else min(streak.run, 0) - 1
    if good and (streak.verdict in ("passing", "warning") or run >= healthy_threshold):
        return Streak(outcome, run)
    if not good and -run >= unhealthy_threshold:
        return Streak("failing", run)
    return Streak(streak.verdict, run)

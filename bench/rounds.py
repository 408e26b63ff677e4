"""Comparisons on a machine that is not ours alone: short rounds in turn, medians of ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping

from bench.load import Measured


class Rounds:
    """What each candidate did in each round; `ratio` compares within rounds, so that a slow minute hits both."""

    def __init__(self, candidates: Mapping[str, Callable[[], Measured]], rounds: int) -> None:
        self.results: dict[str, list[Measured]] = {name: [] for name in candidates}
        for _ in range(rounds):
            for name, measure in candidates.items():
                self.results[name].append(measure())

    @classmethod
    def of(cls, results: dict[str, list[Measured]]) -> Rounds:
        """What was measured already."""
        made = cls({}, 0)
        made.results = results
        return made

    def spread(self, name: str, floor: str) -> tuple[float, float]:
        """The quartiles of the rounds' ratios: how much of a ratio is noise."""
        pairs = zip(self.results[name], self.results[floor], strict=True)
        low, _, high = statistics.quantiles(mine.per_s / other.per_s for mine, other in pairs)
        return low, high

    def ratio(self, name: str, floor: str) -> float:
        """Median over the rounds of rate / floor's rate."""
        pairs = zip(self.results[name], self.results[floor], strict=True)
        return statistics.median(mine.per_s / other.per_s for mine, other in pairs)

    def per_s(self, name: str) -> float:
        return statistics.median(one.per_s for one in self.results[name])

    def cpu_ms(self, name: str, what: str) -> float:
        """Median of the CPU time that `what` (a server) spent on one request."""
        return statistics.median(one.cpu_ms[what] for one in self.results[name])

    def cpu_in_all(self, name: str, floor: str, what: str) -> float:
        """CPU time per request over all rounds / the floor's; a slot alone is too short for the kernel's ticks."""

        def spent(results: list[Measured]) -> float:
            answered = [sum(one.statuses.values()) for one in results]
            return sum(one.cpu_ms[what] * count for one, count in zip(results, answered, strict=True)) / sum(answered)

        return spent(self.results[name]) / spent(self.results[floor])

    def latency(self, name: str) -> str:
        middle = statistics.median(one.p50_ms for one in self.results[name])
        high = statistics.median(one.p99_ms for one in self.results[name])
        return f"{middle:.1f} / {high:.1f}"


def verdict(value: float, goal: float, *, at_most: bool = False) -> str:
    """`met` or `MISSED`, with the goal."""
    met = value <= goal if at_most else value >= goal
    return f"{'met' if met else 'MISSED'} ({'≤' if at_most else '≥'} {goal:g})"

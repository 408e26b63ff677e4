"""What checks came to, condensed: rows of equal outcomes, each at most a minute long. Pure but for its own memory.

Owns what is still to be shipped, bounded: a control plane that is away for hours costs no more memory.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from agent.checks.messages import Outcome, Span

LENGTH_US = 60_000_000
KEPT_MOST = 20_000


@dataclass(slots=True)
class _Open:
    from_us: int
    at_us: int
    outcome: Outcome
    detail: str
    checks: int = 0
    measured: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0

    def add(self, at_us: int, latency_ms: float | None, detail: str) -> None:
        self.at_us, self.detail = at_us, detail
        self.checks += 1
        if latency_ms is not None:
            self.measured += 1
            self.total_ms += latency_ms
            self.longest_ms = max(self.longest_ms, latency_ms)

    def span(self, service_id: int) -> Span:
        mean = round(self.total_ms / self.measured, 3) if self.measured else None
        longest = round(self.longest_ms, 3) if self.measured else None
        return Span(service_id, self.from_us, self.at_us, self.outcome, self.checks, mean, longest, self.detail)


class History:
    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._due: OrderedDict[tuple[int, int], Span] = OrderedDict()
        self.dropped = 0

    def add(self, service_id: int, at_us: int, outcome: Outcome, latency_ms: float | None, detail: str) -> None:
        """One check came out."""
        row = self._open.get(service_id)
        turned = row is None or row.outcome != outcome
        if row is not None and (turned or at_us - row.from_us >= LENGTH_US):
            self._ship(row.span(service_id))
            row = None
        if row is None:
            row = self._open[service_id] = _Open(at_us, at_us, outcome, detail)
        row.add(at_us, latency_ms, detail)
        if turned:  # a change is told at once; its row grows and is told again at its end
            self._ship(row.span(service_id))

    def forget(self, service_id: int) -> None:
        row = self._open.pop(service_id, None)
        if row is not None:
            self._ship(row.span(service_id))

    def due(self, most: int) -> list[Span]:
        """The oldest that were not shipped yet."""
        return list(self._due.values())[:most]

    def shipped(self, spans: list[Span]) -> None:
        """These arrived; what has grown meanwhile stays."""
        for span in spans:
            if self._due.get((span.service_id, span.from_us)) == span:
                del self._due[span.service_id, span.from_us]

    def _ship(self, span: Span) -> None:
        self._due[span.service_id, span.from_us] = span
        while len(self._due) > KEPT_MOST:
            self._due.popitem(last=False)
            self.dropped += 1

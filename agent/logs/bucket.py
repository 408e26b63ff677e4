"""How many lines an instance may ship now.

Pure: the time is handed in. A bucket fills at a steady rate up to its size; taking may overdraw it once, then nothing
is given until the debt is paid, so that batches need not be cut to fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Bucket:
    rate: float
    size: float
    tokens: float
    at: float

    def filled(self, now: float) -> Bucket:
        gained = max(0.0, now - self.at) * self.rate
        return replace(self, tokens=min(self.size, self.tokens + gained), at=max(now, self.at))

    def taken(self, lines: int) -> Bucket:
        return replace(self, tokens=self.tokens - lines)


def full(rate: float, size: float, now: float) -> Bucket:
    return Bucket(rate, size, size, now)

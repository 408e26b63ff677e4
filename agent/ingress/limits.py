"""How many requests a host's clients may still send: one token bucket a host. Pure but for the time it is given.

Owns the arithmetic. Each ingress counts for itself, so that several of them together let several times as many through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.routing import HostRoute

MAX_BUCKETS = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class TokenBuckets:
    """`take` answers 0 when the request may pass, else the whole seconds after which one more will."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def take(self, route: HostRoute, now: float) -> int:
        """`now` in monotonic seconds."""
        rate = route.requests_per_second
        if rate <= 0:
            return 0
        room = float(max(route.burst, math.ceil(rate), 1))
        bucket = self._buckets.get(route.host)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.clear()
            bucket = self._buckets[route.host] = _Bucket(room, now)
        bucket.tokens = min(room, bucket.tokens + max(now - bucket.at, 0.0) * rate)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return math.ceil((1 - bucket.tokens) / rate)

"""What few hosts want of Caddy beyond being looked up: a canary's share, stickiness, limits. Pure.

Owns the choice of what goes into Caddy's configuration. Only what is listed here may cause a reload: members come and
go by DNS alone, and the numbers of a rate limit stay with the page listener.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.routing import HostRoute

_DIGITS = "0123456789abcdef"
_STEPS = 16**3


@dataclass(frozen=True, slots=True, order=True)
class HostPolicy:
    """`canary_percent` 0 to 99; `limited` asks the page listener before each request; `max_body_mb` 0: no limit."""

    host: str
    canary_percent: int = 0
    sticky: bool = False
    limited: bool = False
    max_body_mb: int = 0


def policies_of(routes: Iterable[HostRoute]) -> tuple[HostPolicy, ...]:
    """The hosts that want something, in the order of their names."""
    found = []
    for route in routes:
        policy = HostPolicy(
            route.host.lower().rstrip("."), route.canary_percent, route.sticky, route.requests_per_second > 0,
            route.max_body_mb,
        )  # fmt: skip
        if policy != HostPolicy(policy.host) and not route.maintenance:
            found.append(policy)
    return tuple(sorted(found))


def share_pattern(percent: float) -> str:
    """A pattern for the first three hex digits of a random UUID that `percent` of all UUIDs match.

    Caddy has no random matcher, but a random number for every request: its UUID. Steps of 1/4096, so 1 % is 1.001 %.
    """
    limit = min(max(round(percent * _STEPS / 100), 0), _STEPS)
    if limit == 0:
        return r"^$"
    if limit == _STEPS:
        return "^"
    high, middle, low = limit // 256, limit // 16 % 16, limit % 16
    parts = []
    if high:
        parts.append(f"{_below(high)}..")
    if middle:
        parts.append(f"{_DIGITS[high]}{_below(middle)}.")
    if low:
        parts.append(f"{_DIGITS[high]}{_DIGITS[middle]}{_below(low)}")
    return f"^(?:{'|'.join(parts)})"


def _below(digit: int) -> str:
    return f"[{_DIGITS[:digit]}]"

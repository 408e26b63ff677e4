"""How an app's deployments go: what `App.strategy` means, with every default. Pure.

Owns the arithmetic of counts and percentages. Decides nothing about instances: that is `instances.rollout`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

STEPWISE = frozenset({"blue_green", "canary"})  # the new release runs beside the old one before it takes over
BAKE_S = {"canary": 300.0, "blue_green": 0.0}

Amount = int | str  # a count, or a percentage of the instances such as "25%"


def amount(given: Amount, count: int, *, up: bool) -> int:
    """`given` of `count` instances; a percentage is rounded `up` or down."""
    if isinstance(given, int):
        return given
    share = int(given.rstrip("%")) * count / 100
    return math.ceil(share) if up else math.floor(share)


@dataclass(frozen=True, slots=True)
class Strategy:
    """`bake_s` None: as long as is usual for the type. `max_latency_factor` None: latency is not judged."""

    type: str = "rolling"
    max_surge: Amount = "25%"
    max_unavailable: Amount = 0
    min_ready_s: float = 1.0
    progress_deadline_s: float = 120.0
    auto_revert: bool = True
    watch_s: float = 300.0
    canary_percent: int = 10
    bake_s: float | None = None
    promote: str = "auto"  # auto | manual
    keep_warm_s: float = 300.0
    max_error_increase: float = 0.02
    max_latency_factor: float | None = 2.0
    release_timeout_s: float = 600.0

    @property
    def stepwise(self) -> bool:
        return self.type in STEPWISE

    @property
    def bakes_for_s(self) -> float:
        return BAKE_S.get(self.type, 0.0) if self.bake_s is None else self.bake_s

    def unavailable(self, count: int) -> int:
        return amount(self.max_unavailable, count, up=False)

    def surge(self, count: int) -> int:
        """At least 1 where nothing may be unavailable: nothing could ever be replaced otherwise."""
        chosen = amount(self.max_surge, count, up=True)
        return 1 if chosen == 0 and self.unavailable(count) == 0 else chosen

    def floor(self, count: int) -> int:
        """The instances that keep serving, as far as that is ours to choose."""
        return max(count - self.unavailable(count), 0)

    def beside(self, count: int) -> int:
        """Instances of the new release that run beside all of the old before they take over."""
        if self.type == "blue_green":
            return count
        if self.type == "canary" and count > 0:
            return min(count, max(1, math.ceil(count * self.canary_percent / 100)))
        return 0

    def headroom(self, count: int) -> int:
        """How many instances above the desired count there may be at a time."""
        return self.surge(count) + self.beside(count)


def read(stored: Mapping[str, Any], *, progress_deadline_s: float) -> Strategy:
    """`App.strategy`, or a deployment's frozen copy; what is not set takes its default."""
    known = {name: stored[name] for name in _NAMES if stored.get(name) is not None}
    if "max_latency_factor" in stored:
        known["max_latency_factor"] = stored["max_latency_factor"]
    return Strategy(**{"progress_deadline_s": progress_deadline_s, **known})


def whole(strategy: Strategy) -> dict[str, Any]:
    """Every field, as the API shows it and as a deployment freezes it."""
    shown = {name: getattr(strategy, name) for name in _NAMES}  # asdict would copy each deeply
    shown["bake_s"] = strategy.bakes_for_s
    return shown


_NAMES = tuple(field.name for field in fields(Strategy))

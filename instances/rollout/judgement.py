"""Whether a canary does worse than what ran before, by what both answered in the same period. Pure.

Owns the thresholds below which figures say nothing. A canary is only ever stopped by evidence: with too few requests
there is no verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from apps.strategy import Strategy
from instances.plan.model import Compared
from instances.telemetry.quantiles import quantile

FEWEST_REQUESTS = 10  # below which a share of errors says nothing
FEWEST_FOR_LATENCY = 50  # below which a 95th percentile says nothing
LEAST_SLOWER_MS = 20.0  # a difference that buckets of this width can show
_SHARE = 0.95
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Verdict:
    code: str
    why: str


def judge(compared: Compared, strategy: Strategy) -> Verdict | None:
    """Why the canary is to be stopped, or None."""
    return _errors(compared, strategy.max_error_increase) or _latency(compared, strategy.max_latency_factor)


def _errors(compared: Compared, increase: float) -> Verdict | None:
    """Surely (to one side of a 95 % interval) more errors than the old release's own share plus `increase`."""
    new, old = compared.new, compared.old
    if new.requests < FEWEST_REQUESTS:
        return None
    usual = old.failed / old.requests if old.requests >= FEWEST_REQUESTS else 0.0
    if lower_bound(new.failed, new.requests) <= usual + increase:
        return None
    return Verdict(
        "canary_errors",
        f"{new.failed} of {new.requests} requests to the canary failed; of the old release {old.failed} of "
        f"{old.requests} in the same time",
    )


def _latency(compared: Compared, factor: float | None) -> Verdict | None:
    new, old = compared.new, compared.old
    if factor is None or min(sum(new.histogram), sum(old.histogram)) < FEWEST_FOR_LATENCY:
        return None
    slow, usual = quantile(new.histogram, _SHARE), quantile(old.histogram, _SHARE)
    if slow is None or usual is None or slow <= usual * factor or slow - usual < LEAST_SLOWER_MS:
        return None
    return Verdict(
        "canary_slow",
        f"95 % of the canary's requests were answered within {slow:g} ms, of the old release's within {usual:g} ms "
        "in the same time",
    )


def lower_bound(hits: int, of: int) -> float:
    """Of Wilson's 95 % interval for a share: what it is at least."""
    if not of:
        return 0.0
    share, spread = hits / of, _Z * _Z / of
    middle = share + spread / 2
    width = _Z * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, (middle - width) / (1 + spread))

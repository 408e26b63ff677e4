"""What a new deployment starts from, given the one before it. Pure.

Owns what it would go back to, which strategy it really has, what it carries on of a rollout that it supersedes, and
who takes requests from its first moment on.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Literal

from apps.strategy import Strategy
from instances.plan.model import DeploymentView, ReleaseView

TRIED = frozenset({"deploy", "config"})  # kinds that bring something nobody has seen run


@dataclass(frozen=True, slots=True)
class Opening:
    """`floor` None: its own id (restart). `leaves`: the side of the rollout before it that took no part in serving,
    or only its share, and ends with it."""

    previous: ReleaseView | None
    previous_floor: int
    floor: int | None
    strategy: Strategy
    first: int = 0
    paused: bool = False
    promoted: bool = False
    baking_since: dt.datetime | None = None
    new_percent: int | None = None
    leaves: Literal["new", "old"] | None = None


def opening(
    last: DeploymentView | None,
    kind: str,
    release: ReleaseView | None,
    strategy: Strategy,
    *,
    singleton: bool = False,
    in_use: bool = False,
) -> Opening:
    """For a deployment of `kind` that wants `release`, after `last`; `in_use`: instances of it take requests now."""
    if last is None:
        return Opening(None, 0, None if kind == "restart" else 0, _resolved(strategy, None, kind, release, singleton))
    settled = last.status == "succeeded"
    previous = last.release if settled else last.previous
    previous_floor = last.floor if settled else last.previous_floor
    floor = last.floor if settled or last.under_way else last.previous_floor
    if _carries(last, kind, release):
        return Opening(
            previous, previous_floor, floor, last.strategy, last.since, last.paused, last.promoted, last.baking_since,
            last.new_percent,
        )  # fmt: skip
    resolved = _resolved(strategy, previous, kind, release, singleton)
    return Opening(
        previous, previous_floor, None if kind == "restart" else floor, resolved,
        new_percent=_first_percent(last, release, in_use) if resolved.stepwise else None, leaves=_leaves(last),
    )  # fmt: skip


def _first_percent(last: DeploymentView, release: ReleaseView | None, in_use: bool) -> int | None:
    """A release that nobody has tried takes no requests; one that takes some already goes on doing so."""
    if not in_use:
        return 0
    return last.new_percent if _same(last.release, release) else None


def _carries(last: DeploymentView, kind: str, release: ReleaseView | None) -> bool:
    """A scaling in the middle of a rollout goes on with it, in whatever phase it is."""
    return kind == "scale" and last.under_way and _same(last.release, release)


def _same(one: ReleaseView | None, other: ReleaseView | None) -> bool:
    return one is not None and other is not None and one.id == other.id


def _resolved(
    strategy: Strategy, previous: ReleaseView | None, kind: str, release: ReleaseView | None, singleton: bool
) -> Strategy:
    """Two releases beside each other take two releases; and the way back to a known one is not a trial."""
    if singleton:
        return replace(strategy, type="recreate")
    beside = previous is not None and release is not None and previous.id != release.id
    tried = kind in TRIED or (kind == "rollback" and strategy.type == "blue_green")
    return strategy if not strategy.stepwise or (beside and tried) else replace(strategy, type="rolling")


def _leaves(last: DeploymentView) -> Literal["new", "old"] | None:
    if last.new_percent is None:
        return None
    return "old" if last.new_percent == 100 else "new"

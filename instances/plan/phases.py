"""The steps of a deployment whose new release runs beside the old one before it takes over. Pure.

    canary      starting → baking (its share of the requests) → promoted: rolling, no share any more
    blue_green  starting → baking (no requests) → promoted → switched (all requests) → the old side kept warm → over

What has happened is on the deployment (`baking_since`, `promoted`, `new_percent`, `warm_until`), so that whoever leads
goes on from there. Owns when each step is taken; the instances are the strategies' business.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from instances.plan.actions import Action, Bake, Draft, Promote, Shift
from instances.plan.failure import Failure
from instances.plan.model import DeploymentView
from instances.rollout import judgement, sides
from instances.rollout.fleet import Fleet, Moves, Stage

LOOK_EVERY_S = 2.0  # requests are counted without an event
SWITCHED = 100


@dataclass(frozen=True, slots=True)
class Step:
    """`ends_wait`: nothing has to progress at the moment, so that no deadline runs."""

    actions: tuple[Action, ...] = ()
    failure: Failure | None = None
    ends_wait: bool = False


def stage(deployment: DeploymentView, now: dt.datetime) -> Stage:
    """How the two releases stand to each other."""
    if deployment.paused and deployment.under_way:
        return "held"
    kind, switched = deployment.strategy.type, deployment.new_percent == SWITCHED
    if deployment.under_way:
        if kind == "canary" and not deployment.promoted:
            return "beside"
        if kind == "blue_green":
            return "warm" if switched else "beside"
    kept = deployment.warm_until is not None and now < deployment.warm_until
    return "warm" if deployment.status == "succeeded" and switched and kept else "over"


def step(deployment: DeploymentView, fleet: Fleet, now: dt.datetime, draft: Draft) -> Step:
    """What is next for a deployment in the stage `beside`."""
    strategy = deployment.strategy
    if not sides.ready_beside(fleet):
        return Step()
    if deployment.baking_since is None:
        percent = strategy.canary_percent if strategy.type == "canary" else deployment.new_percent
        return Step((Bake(deployment.id, percent, f"{fleet.beside} instances of the new release are ready"),))
    verdict = judgement.judge(deployment.compared, strategy) if deployment.compared is not None else None
    if verdict is not None:
        return Step(failure=Failure(verdict.code, verdict.why, _one_of(deployment, fleet)))
    if deployment.promoted:  # by hand; a canary's stage would be over
        return Step((_switch(deployment, now),))
    if deployment.compared is not None:
        draft.wait(now + dt.timedelta(seconds=LOOK_EVERY_S), "the requests that the new release answers")
    until = deployment.baking_since + dt.timedelta(seconds=strategy.bakes_for_s)
    if strategy.promote == "manual":
        return Step(ends_wait=True)
    if now < until:
        draft.wait(until, "the end of the new release's trial")
        return Step(ends_wait=True)
    why = _nothing_against(deployment)
    promoted = Promote(deployment.id, None if strategy.type == "canary" else deployment.new_percent, why)
    return Step((promoted, _switch(deployment, now)) if strategy.type == "blue_green" else (promoted,))


def settle(deployment: DeploymentView, fleet: Fleet, moves: Moves, draft: Draft) -> None:
    """After the deployment: what is kept warm goes when its time is up, and then nobody is told apart any more."""
    if deployment.active or deployment.new_percent is None:
        return
    if fleet.stage == "warm":
        assert deployment.warm_until is not None  # noqa: S101 - the stage says so
        draft.wait(deployment.warm_until, "the old release is kept warm")
    elif not moves.stops:
        draft.actions.append(Shift(deployment.id, None, "only one release is left"))


def _switch(deployment: DeploymentView, now: dt.datetime) -> Shift:
    warm = deployment.strategy.keep_warm_s
    why = f"all requests go to the new release; the old one is kept warm for {warm:g} s"
    return Shift(deployment.id, SWITCHED, why, now + dt.timedelta(seconds=warm))


def _nothing_against(deployment: DeploymentView) -> str:
    strategy, compared = deployment.strategy, deployment.compared
    told = f"ready for {strategy.bakes_for_s:g} s"
    if compared is None:
        return told
    return f"{told}; {compared.new.failed} of {compared.new.requests} requests failed"


def _one_of(deployment: DeploymentView, fleet: Fleet) -> int | None:
    """An instance whose log may say why."""
    return next((i.id for i in fleet.wanted if fleet.goal.made(i) and i.deployment_id >= deployment.since), None)

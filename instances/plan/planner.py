"""`plan(desired, observed, now)`: what to do next with one app, with reasons. Pure.

No clock, ORM, network or random inside. The same input gives the same plan; at the fixed point it is empty. Applying
any part of a plan and planning again leads to the same end.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from instances import placement
from instances.placement import Choice, Need
from instances.plan import backoff, failure
from instances.plan.actions import (
    Assign,
    Begin,
    Draft,
    Explain,
    FailDeployment,
    Finish,
    Forget,
    GiveUp,
    Place,
    Plan,
    Progress,
    Purge,
    Revert,
    Stop,
)
from instances.plan.model import DeploymentView, Desired, InstanceView, Observed
from instances.plan.status import app_status
from instances.rollout import STRATEGIES, rolling
from instances.rollout.fleet import Fleet, Goal, Mode, Moves, Start, make

_WAITS_FOR_STOPS = frozenset({"stop", "scale"})


def plan(desired: Desired, observed: Observed, now: dt.datetime) -> Plan:
    deployment = desired.deployment
    if deployment is not None and _reverts_now(desired, deployment):
        return Plan((_revert(deployment),), "deploying")
    goal, mode = _goal(desired)
    fleet = _fleet(desired, observed, goal, mode)
    draft = Draft()
    if deployment is not None and mode == "rolling" and goal.count > 0:
        failed = failure.find(deployment, fleet, now, desired.watched_since)
        if failed is not None:
            return _failed(deployment, failed, draft)
    moves = _strategy(desired)(fleet)
    _convert(desired, observed, fleet, moves, draft, now)
    working = _advance(desired, fleet, moves, draft, now)
    if desired.state == "deleted" and not any(i.live for i in observed.instances) and not draft.actions:
        draft.actions.append(Purge("everything of the app has stopped"))
    status = app_status(desired, observed, working=working)
    return Plan(tuple(draft.actions), status, draft.wait_until, draft.waiting_for)


def _goal(desired: Desired) -> tuple[Goal, Mode]:
    """What is to run, and how strictly: the rules in order, first match wins."""
    deployment = desired.deployment
    if desired.state == "deleted" or deployment is None:
        return Goal(None, 0, 0), "steady"
    new = Goal(deployment.release, deployment.floor, desired.count if deployment.release is not None else 0)
    old = Goal(deployment.previous, deployment.previous_floor, desired.count)
    if deployment.status in ("pending", "rolling"):
        return new, "rolling"
    if deployment.status == "reverting":
        return old, "reverting"
    if deployment.status == "succeeded":
        return new, "steady"
    if deployment.status == "reverted" or new == old:
        return old, "steady"
    if deployment.status == "cancelled" and deployment.previous is None:
        return Goal(None, 0, 0), "steady"
    return old, "frozen"  # failed (or cancelled) for good: what runs is let be


def _fleet(desired: Desired, observed: Observed, goal: Goal, mode: Mode) -> Fleet:
    if desired.deployment is None:
        return make(goal, mode, observed.instances)
    strategy = desired.deployment.strategy
    surge = strategy.surge(goal.count)
    return make(goal, mode, observed.instances, surge=surge, unavailable=strategy.max_unavailable)


def _strategy(desired: Desired) -> Callable[[Fleet], Moves]:
    if desired.singleton:
        return STRATEGIES["recreate"]
    kind = desired.deployment.strategy.type if desired.deployment is not None else "rolling"
    return STRATEGIES.get(kind, rolling)


def _reverts_now(desired: Desired, deployment: DeploymentView) -> bool:
    return deployment.status in ("failed", "cancelled") and deployment.can_revert and desired.state != "deleted"


def _revert(deployment: DeploymentView) -> Revert:
    assert deployment.previous is not None  # noqa: S101 - can_revert
    back = deployment.previous
    return Revert(deployment.id, back, f"version {back.version} (release {back.number}) comes back")


def _failed(deployment: DeploymentView, failed: failure.Failure, draft: Draft) -> Plan:
    draft.actions.append(FailDeployment(deployment.id, failed.code, failed.why, failed.instance))
    if deployment.can_revert:
        draft.actions.append(_revert(deployment))
    return Plan(tuple(draft.actions), "deploying")


def _convert(desired: Desired, observed: Observed, fleet: Fleet, moves: Moves, draft: Draft, now: dt.datetime) -> None:
    """Moves become actions: stops first, then nodes for what is pending, then nodes for what is new."""
    stopping = {instance.id for instance, _ in moves.stops}
    draft.actions += [Stop(instance.id, instance.slot, why) for instance, why in moves.stops]
    draft.actions += [Forget(instance.id, why) for instance, why in moves.forgets]
    nodes = observed.nodes
    own: dict[int, int] = {}
    for instance in fleet.wanted:
        if instance.node_id is not None and instance.id not in stopping:
            own[instance.node_id] = own.get(instance.node_id, 0) + 1

    def choose(need: Need) -> Choice:
        nonlocal nodes
        choice = placement.choose(nodes, need, own)
        if choice.node is not None:
            nodes = placement.reserve(nodes, choice.node.id, need)
            own[choice.node.id] = own.get(choice.node.id, 0) + 1
        return choice

    for instance in fleet.wanted:
        if instance.status == "pending" and instance.id not in stopping:
            _assign(instance, choose(_need(desired, instance.memory_mb, instance.cpu)), draft)
    for start in moves.starts:
        if _due(fleet, start, draft, now):
            release = fleet.goal.release
            assert release is not None  # noqa: S101 - strategies start nothing without a release
            choice = choose(_need(desired, release.memory_mb, release.cpu))
            draft.actions.append(Place(start.slot, release, choice, start.why, start.attempt, start.replaces))


def _assign(instance: InstanceView, choice: Choice, draft: Draft) -> None:
    if choice.node is not None:
        draft.actions.append(Assign(instance.id, instance.slot, choice, choice.reason))
    elif choice.reason != instance.reason:
        draft.actions.append(Explain(instance.id, choice, choice.reason))


def _due(fleet: Fleet, start: Start, draft: Draft, now: dt.datetime) -> bool:
    """Whether the slot's back-off has passed; only a series of the same release waits."""
    rows = fleet.ended(start.slot)
    if not rows or not fleet.fits(rows[-1]):
        return True
    until = backoff.not_before(rows[-1])
    if until is None or until <= now:
        return True
    draft.wait(until, f"slot {start.slot} backs off after instance {rows[-1].id} {rows[-1].status}")
    return False


def _need(desired: Desired, memory_mb: int, cpu: float) -> Need:
    return Need(memory_mb, cpu, desired.runtime, desired.constraints, desired.cpu_overcommit)


def _advance(desired: Desired, fleet: Fleet, moves: Moves, draft: Draft, now: dt.datetime) -> bool:
    """The active deployment's own steps; whether it is still under way afterwards."""
    deployment = desired.deployment
    if deployment is None or not deployment.active or desired.state == "deleted":
        return False
    if deployment.status == "pending":
        draft.actions.insert(0, Begin(deployment.id, f"{deployment.kind}: {_aim(fleet.goal)}"))
    if _reached(deployment, fleet, moves):
        draft.actions.append(Finish(deployment.id, _aim(fleet.goal)))
        return False
    measure, deadline = _measure(fleet), failure.deadline(deployment, desired.watched_since)
    if deployment.status == "pending":
        deadline = now + dt.timedelta(seconds=deployment.strategy.progress_deadline_s)
    if deployment.progress is None or measure > deployment.progress:
        ready = sum(1 for slot in fleet.slots if fleet.satisfied(slot))
        draft.actions.append(Progress(deployment.id, measure, f"{ready} of {fleet.goal.count} serve"))
    elif deployment.status == "reverting" and now >= deadline:
        draft.actions.append(GiveUp(deployment.id, "the release that was to come back does not get healthy either"))
        return False
    draft.wait(deadline, "the deployment's progress deadline")
    return True


def _reached(deployment: DeploymentView, fleet: Fleet, moves: Moves) -> bool:
    if moves.starts or moves.stops or not all(fleet.satisfied(slot) for slot in fleet.slots):
        return False
    to_the_end = deployment.kind in _WAITS_FOR_STOPS or fleet.goal.count == 0
    return not to_the_end or not any(i.live and not i.wanted for i in fleet.instances)


def _measure(fleet: Fleet) -> int:
    """Grows with each slot that is served as wished and each other instance that is gone."""
    ready = sum(1 for slot in fleet.slots if fleet.satisfied(slot))
    others = sum(1 for i in fleet.instances if i.live and not (i.wanted and fleet.fits(i)))
    return 2 * ready - others


def _aim(goal: Goal) -> str:
    if goal.release is None or goal.count == 0:
        return "nothing runs"
    return f"{goal.count} instances of version {goal.release.version} (release {goal.release.number})"

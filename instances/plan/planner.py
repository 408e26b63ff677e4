"""`plan(desired, observed, now)`: what to do next with one app, with reasons. Pure.

No clock, ORM, network or random inside. The same input gives the same plan; at the fixed point it is empty. Applying
any part of a plan and planning again leads to the same end.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

from instances.placement import Choice, Pool
from instances.plan import backoff, failure, phases
from instances.plan.actions import (
    Action,
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
from instances.rollout import STRATEGIES, rolling, sides
from instances.rollout.fleet import Fleet, Goal, Mode, Moves, Start, make

_WAITS_FOR_STOPS = frozenset({"stop", "scale"})


def plan(desired: Desired, observed: Observed, now: dt.datetime) -> Plan:
    deployment = desired.deployment
    if deployment is not None and _reverts_now(desired, deployment):
        return Plan((_revert(desired, deployment, observed),), "deploying")
    goal, mode = _goal(desired)
    fleet = _fleet(desired, observed, goal, mode, now)
    draft, step = Draft(), phases.Step()
    if deployment is not None and goal.count > 0:
        if mode == "rolling" and fleet.stage == "beside":
            step = phases.step(deployment, fleet, now, draft)
        failed = _failure(desired, deployment, fleet, step, mode, now)
        if failed is not None:
            return _failed(desired, deployment, observed, failed)
    moves = sides.hold(fleet) if fleet.stage == "held" else _strategy(desired)(fleet)
    _convert(desired, observed, fleet, moves, draft, now)
    working = _advance(desired, fleet, moves, step, draft, now)
    if deployment is not None:
        phases.settle(deployment, fleet, moves, draft)
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


def _fleet(desired: Desired, observed: Observed, goal: Goal, mode: Mode, now: dt.datetime) -> Fleet:
    deployment = desired.deployment
    if deployment is None:
        return make(Fleet(goal, mode, observed.instances))
    strategy, count = deployment.strategy, goal.count
    staged = mode in ("rolling", "steady") and not desired.singleton and count > 0
    return make(
        Fleet(
            goal, mode, observed.instances, strategy.surge(count), strategy.unavailable(count),
            ready_before=now - dt.timedelta(seconds=strategy.min_ready_s),
            stage=phases.stage(deployment, now) if staged else "over",
            old=Goal(deployment.previous, deployment.previous_floor, count), beside=strategy.beside(count),
        )
    )  # fmt: skip


def _strategy(desired: Desired) -> Callable[[Fleet], Moves]:
    if desired.singleton:
        return STRATEGIES["recreate"]
    kind = desired.deployment.strategy.type if desired.deployment is not None else "rolling"
    return STRATEGIES.get(kind, rolling)


def _reverts_now(desired: Desired, deployment: DeploymentView) -> bool:
    return deployment.status in ("failed", "cancelled") and deployment.can_revert and desired.state != "deleted"


def _revert(desired: Desired, deployment: DeploymentView, observed: Observed) -> Revert:
    """Where the old release still stands whole beside the new one, the requests go back to it at once."""
    assert deployment.previous is not None  # noqa: S101 - can_revert
    back, percent = deployment.previous, None
    if deployment.new_percent is not None:
        new = Goal(deployment.release, deployment.floor, desired.count)
        percent = 0 if sides.old_serves(Fleet(new, "reverting", observed.instances)) else None
    why = f"version {back.version} (release {back.number}) comes back"
    return Revert(deployment.id, back, why, percent)


def _failure(
    desired: Desired, deployment: DeploymentView, fleet: Fleet, step: phases.Step, mode: Mode, now: dt.datetime
) -> failure.Failure | None:
    if mode == "rolling":
        waits = fleet.stage == "held" or step.ends_wait
        late = None if waits else failure.overdue(deployment, fleet, now, desired.watched_since)
        return failure.find(deployment, fleet) or step.failure or late
    if deployment.watched:
        return failure.afterwards(deployment, fleet, now)
    return None


def _failed(desired: Desired, deployment: DeploymentView, observed: Observed, failed: failure.Failure) -> Plan:
    actions: list[Action] = [FailDeployment(deployment.id, failed.code, failed.why, failed.instance)]
    if deployment.can_revert:
        actions.append(_revert(desired, deployment, observed))
    return Plan(tuple(actions), "deploying")


def _convert(desired: Desired, observed: Observed, fleet: Fleet, moves: Moves, draft: Draft, now: dt.datetime) -> None:
    """Moves become actions: stops first, then nodes for what is pending, then nodes for what is new."""
    stopping = {instance.id for instance, _ in moves.stops}
    _await_ready(desired, fleet, draft)
    draft.actions += [Stop(instance.id, instance.slot, why) for instance, why in moves.stops]
    draft.actions += [Forget(instance.id, why) for instance, why in moves.forgets]
    books = observed.pool.fork() if observed.pool is not None else Pool(observed.nodes)
    own: dict[int, int] = {}
    for instance in fleet.wanted:
        if instance.node_id is not None and instance.id not in stopping:
            own[instance.node_id] = own.get(instance.node_id, 0) + 1

    def choose(memory_mb: int, cpu: float) -> Choice:
        choice = books.choose(replace(desired.wants, memory_mb=memory_mb, cpu=cpu), own)
        if choice.node is not None:
            books.take(choice.node.id, memory_mb, cpu)
            own[choice.node.id] = own.get(choice.node.id, 0) + 1
        return choice

    for instance in fleet.wanted:
        if instance.status == "pending" and instance.id not in stopping:
            _assign(instance, choose(instance.memory_mb, instance.cpu), draft)
    for start in moves.starts:
        if _due(start, draft, now):
            release = start.release
            choice = choose(release.memory_mb, release.cpu)
            draft.actions.append(Place(start.slot, release, choice, start.why, start.attempt, start.replaces))


def _assign(instance: InstanceView, choice: Choice, draft: Draft) -> None:
    if choice.node is not None:
        draft.actions.append(Assign(instance.id, instance.slot, choice, choice.reason))
    elif choice.reason != instance.reason:
        draft.actions.append(Explain(instance.id, choice, choice.reason))


def _await_ready(desired: Desired, fleet: Fleet, draft: Draft) -> None:
    """What is healthy but has not been for long enough is to be looked at again."""
    if desired.deployment is None:
        return
    for instance in fleet.wanted:
        if instance.available and instance.healthy_since is not None and not fleet.ready(instance):
            until = instance.healthy_since + dt.timedelta(seconds=desired.deployment.strategy.min_ready_s)
            draft.wait(until, f"instance {instance.id} has to stay healthy for a moment")


def _due(start: Start, draft: Draft, now: dt.datetime) -> bool:
    """Whether the slot's back-off has passed; only a series of the same release waits."""
    until = backoff.not_before(start.last) if start.last is not None else None
    if start.last is None or until is None or until <= now:
        return True
    draft.wait(until, f"slot {start.slot} backs off after instance {start.last.id} {start.last.status}")
    return False


def _advance(desired: Desired, fleet: Fleet, moves: Moves, step: phases.Step, draft: Draft, now: dt.datetime) -> bool:
    """The active deployment's own steps; whether it is still under way afterwards."""
    deployment = desired.deployment
    if deployment is None or not deployment.active or desired.state == "deleted":
        return False
    if deployment.status == "pending":
        draft.actions.insert(0, Begin(deployment.id, f"{deployment.kind}: {_aim(fleet.goal)}"))
    if _reached(deployment, fleet, moves):
        draft.actions.append(Finish(deployment.id, _aim(fleet.goal)))
        return False
    draft.actions += step.actions
    measure, deadline = _measure(fleet), failure.deadline(deployment, desired.watched_since)
    if deployment.status == "pending":
        deadline = now + dt.timedelta(seconds=deployment.strategy.progress_deadline_s)
    if deployment.progress is None or measure > deployment.progress:
        ready = sum(1 for slot in fleet.slots if fleet.satisfied(slot))
        draft.actions.append(Progress(deployment.id, measure, f"{ready} of {fleet.goal.count} serve"))
    elif deployment.status == "reverting" and now >= deadline:
        draft.actions.append(GiveUp(deployment.id, "the release that was to come back does not get healthy either"))
        return False
    if fleet.stage != "held" and not step.ends_wait:
        draft.wait(deadline, "the deployment's progress deadline")
    return True


def _reached(deployment: DeploymentView, fleet: Fleet, moves: Moves) -> bool:
    if fleet.stage in ("beside", "held") or moves.starts or moves.stops:
        return False
    if not all(fleet.satisfied(slot) for slot in fleet.slots):
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

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
    Prepare,
    Progress,
    Purge,
    Revert,
    Stop,
)
from instances.plan.crews import Crew, crews, settled, wanted_counts
from instances.plan.model import WEB, DeploymentView, Desired, InstanceView, Observed
from instances.plan.status import app_status
from instances.rollout import STRATEGIES, rolling, sides
from instances.rollout.fleet import Fleet, Goal, Moves, Start

_WAITS_FOR_STOPS = frozenset({"stop", "scale"})


def plan(desired: Desired, observed: Observed, now: dt.datetime) -> Plan:
    deployment = desired.deployment
    if deployment is not None and _reverts_now(desired, deployment):
        return Plan((_revert(desired, deployment, observed),), "deploying")
    found = crews(desired, observed, now)
    web = found[0].fleet
    draft, step = Draft(), phases.Step()
    if deployment is not None and desired.state != "deleted":
        failed = _unprepared(deployment)
        if failed is not None:
            return _failed(desired, deployment, observed, failed)
    if deployment is not None:
        if web.mode == "rolling" and web.stage == "beside":
            step = phases.step(deployment, web, now, draft)
        failed = _failure(desired, deployment, found, step, now)
        if failed is not None:
            return _failed(desired, deployment, observed, failed)
    moves = [_moves(desired, crew) for crew in found]
    books = observed.pool.fork() if observed.pool is not None else Pool(observed.nodes)
    for crew, wanted in zip(found, moves, strict=True):
        _convert(desired, books, crew.fleet, wanted, draft, now)
    working = _advance(desired, observed, found, moves, step, draft, now)
    if deployment is not None:
        phases.settle(deployment, web, moves[0], draft)
    if desired.state == "deleted" and not any(i.live for i in observed.instances) and not draft.actions:
        draft.actions.append(Purge("everything of the app has stopped"))
    status = app_status(desired, observed, wanted_counts(desired, observed), working=working)
    return Plan(tuple(draft.actions), status, draft.wait_until, draft.waiting_for)


def _moves(desired: Desired, crew: Crew) -> Moves:
    if crew.fleet.stage == "held":
        return sides.hold(crew.fleet)
    return rolling(crew.fleet) if crew.aside and not desired.singleton else _strategy(desired)(crew.fleet)


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
        new = Goal(deployment.release, deployment.floor, desired.count_of(WEB))
        web = tuple(i for i in observed.instances if i.process_type == WEB)
        percent = 0 if sides.old_serves(Fleet(new, "reverting", web)) else None
    why = f"version {back.version} (release {back.number}) comes back"
    return Revert(deployment.id, back, why, percent)


def _failure(
    desired: Desired, deployment: DeploymentView, found: list[Crew], step: phases.Step, now: dt.datetime
) -> failure.Failure | None:
    fleets = [crew.fleet for crew in found if crew.fleet.goal.count > 0]
    if not fleets:
        return None
    if deployment.under_way:
        own = [crew.fleet for crew in found if crew.fleet.goal.count > 0 and not crew.aside]
        waits = any(fleet.stage == "held" for fleet in fleets) or step.ends_wait
        late = None if waits else failure.overdue(deployment, fleets, now, desired.watched_since)
        return next(filter(None, (failure.find(deployment, fleet) for fleet in own)), step.failure or late)
    if deployment.watched:
        return next(filter(None, (failure.afterwards(deployment, fleet, now) for fleet in fleets)), None)
    return None


def _unprepared(deployment: DeploymentView) -> failure.Failure | None:
    command = deployment.command
    if not deployment.preparing or command is None or command.state in ("due", "running"):
        return None
    why = f"the release command {command.state.replace('_', ' ')}: {command.why}"
    return failure.Failure("release_command_failed", why, command.instance)


def _failed(desired: Desired, deployment: DeploymentView, observed: Observed, failed: failure.Failure) -> Plan:
    actions: list[Action] = [FailDeployment(deployment.id, failed.code, failed.why, failed.instance)]
    if deployment.can_revert:
        actions.append(_revert(desired, deployment, observed))
    return Plan(tuple(actions), "deploying")


def _convert(desired: Desired, books: Pool, fleet: Fleet, moves: Moves, draft: Draft, now: dt.datetime) -> None:
    """Moves become actions: stops first, then nodes for what is pending, then nodes for what is new."""
    stopping = {instance.id for instance, _ in moves.stops}
    _await_ready(desired, fleet, draft)
    draft.actions += [Stop(instance.id, instance.slot, why) for instance, why in moves.stops]
    draft.actions += [Forget(instance.id, why) for instance, why in moves.forgets]
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
            size = start.release.size_of(fleet.process_type)
            assert size is not None  # noqa: S101 - a type that the release has not is wanted 0 times
            draft.actions.append(
                Place(start.slot, start.release, choose(size.memory_mb, size.cpu), start.why, start.attempt,
                      start.replaces, fleet.process_type)
            )  # fmt: skip


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


def _advance(
    desired: Desired, observed: Observed, found: list[Crew], moves: list[Moves], step: phases.Step, draft: Draft,
    now: dt.datetime,
) -> bool:  # fmt: skip
    """The active deployment's own steps; whether it is still under way afterwards."""
    deployment = desired.deployment
    if deployment is None or not deployment.active or desired.state == "deleted":
        return False
    if deployment.preparing:
        if deployment.command is not None and deployment.command.state == "due" and not deployment.paused:
            draft.actions.append(Prepare(deployment.id, "the release command comes before its instances"))
        return True
    if deployment.status == "pending":
        draft.actions.insert(0, Begin(deployment.id, f"{deployment.kind}: {_aim(found)}"))
    if _reached(deployment, observed, found, moves):
        draft.actions.append(Finish(deployment.id, _aim(found)))
        return False
    draft.actions += step.actions
    measure, deadline = _measure(found), failure.deadline(deployment, desired.watched_since)
    if deployment.status == "pending":
        deadline = now + dt.timedelta(seconds=deployment.strategy.progress_deadline_s)
    if deployment.progress is None or measure > deployment.progress:
        wanted = sum(crew.fleet.goal.count for crew in found)
        draft.actions.append(Progress(deployment.id, measure, f"{settled(found)} of {wanted} serve"))
    elif deployment.status == "reverting" and now >= deadline:
        draft.actions.append(GiveUp(deployment.id, "the release that was to come back does not get healthy either"))
        return False
    if not any(crew.fleet.stage == "held" for crew in found) and not step.ends_wait:
        draft.wait(deadline, "the deployment's progress deadline")
    return True


def _reached(deployment: DeploymentView, observed: Observed, found: list[Crew], moves: list[Moves]) -> bool:
    if any(crew.aside or crew.fleet.stage in ("beside", "held") for crew in found):
        return False
    if any(wanted.starts or wanted.stops for wanted in moves):
        return False
    if not all(crew.fleet.satisfied(slot) for crew in found for slot in crew.fleet.slots):
        return False
    to_the_end = deployment.kind in _WAITS_FOR_STOPS or not any(crew.fleet.goal.count for crew in found)
    return not to_the_end or not any(i.live and not i.wanted for i in observed.instances)


def _measure(found: list[Crew]) -> int:
    """Grows with each slot that is served as wished and each other instance that is gone."""
    others = sum(1 for crew in found for i in crew.fleet.instances if i.live and not (i.wanted and crew.fleet.fits(i)))
    return 2 * settled([crew for crew in found if not crew.aside]) - others


def _aim(found: list[Crew]) -> str:
    counted = [(crew.process_type, crew.fleet.goal) for crew in found if crew.fleet.goal.count and not crew.aside]
    if not counted or counted[0][1].release is None:
        return "nothing runs"
    release = counted[0][1].release
    what = " and ".join(f"{goal.count} {name}" for name, goal in counted)
    if [name for name, _ in counted] == [WEB]:
        what = str(counted[0][1].count)
    noun = "instance" if what == "1" else "instances"
    return f"{what} {noun} of version {release.version} (release {release.number})"

"""An app's instances by process type: one fleet for each, all under the one deployment. Pure.

Owns which types there are, how many of each are to run, and which of them stand aside. `web` is the one that takes
requests, so the phases of a deployment (`plan.phases`) are its alone. The others keep what they have while a new
release is only tried beside the old one: a worker that nobody sends requests to cannot be tried on a part of them. A
type that the new release no longer has leaves last, when everything else serves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instances.plan import phases
from instances.plan.model import WEB, DeploymentView, Desired, InstanceView, Observed, ReleaseView
from instances.rollout.fleet import Fleet, Goal, Mode, make


@dataclass(frozen=True, slots=True)
class Crew:
    """`aside`: kept as it is for now; then `fleet` is not what the deployment aims at."""

    fleet: Fleet
    aside: bool = False

    @property
    def process_type(self) -> str:
        return self.fleet.process_type


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to run, and how strictly."""

    release: ReleaseView | None
    floor: int
    mode: Mode
    keeps: bool = False  # without a release: what runs is let be

    def count(self, desired: Desired, process_type: str) -> int:
        if self.release is None:
            return desired.count_of(process_type) if self.keeps else 0
        return desired.count_of(process_type) if self.release.has(process_type) else 0


def aim(desired: Desired) -> Aim:
    """The rules in order, first match wins."""
    deployment = desired.deployment
    if desired.state == "deleted" or deployment is None:
        return Aim(None, 0, "steady")
    new = Aim(deployment.release, deployment.floor, "rolling")
    old = Aim(deployment.previous, deployment.previous_floor, "steady", keeps=True)
    if deployment.status in ("pending", "rolling"):
        return new
    if deployment.status == "reverting":
        return replace(old, mode="reverting")
    if deployment.status == "succeeded":
        return replace(new, mode="steady")
    same = deployment.release is not None and not deployment.changes
    if deployment.status == "reverted" or same:
        return old
    if deployment.status == "cancelled" and deployment.previous is None:
        return Aim(None, 0, "steady")
    return replace(old, mode="frozen")  # failed (or cancelled) for good: what runs is let be


def crews(desired: Desired, observed: Observed, now: dt.datetime) -> list[Crew]:
    """Web first, then by name; at least web's."""
    wanted, by_type = aim(desired), _by_type(desired, observed)
    fleets = {name: _fleet(desired, wanted, name, rows, now) for name, rows in by_type.items()}
    if wanted.mode != "rolling" or desired.deployment is None:
        return [Crew(fleet) for fleet in fleets.values()]
    if desired.deployment.preparing:
        return [Crew(_as_it_was(desired, desired.deployment, fleet), True) for fleet in fleets.values()]
    trial = fleets[WEB].stage == "beside"
    busy = trial or not all(_settled(fleet) for fleet in fleets.values() if not _leaves(wanted, fleet))
    found = []
    for name, fleet in fleets.items():
        aside = (trial and name != WEB) or (busy and _leaves(wanted, fleet))
        found.append(Crew(_as_it_was(desired, desired.deployment, fleet), True) if aside else Crew(fleet))
    return found


def wanted_counts(desired: Desired, observed: Observed) -> dict[str, int]:
    """How many of each process type people want, of those that the release has."""
    deployment = desired.deployment
    release = aim(desired).release or (deployment and (deployment.release or deployment.previous)) or None
    names = {WEB, *(name for name, _ in desired.others)}
    return {name: desired.count_of(name) for name in sorted(names) if release is None or release.has(name)}


def _by_type(desired: Desired, observed: Observed) -> dict[str, tuple[InstanceView, ...]]:
    rows: dict[str, list[InstanceView]] = {}
    for instance in observed.instances:
        rows.setdefault(instance.process_type, []).append(instance)
    others = {name for name, _ in desired.others} | rows.keys()
    return {name: tuple(rows.get(name, ())) for name in (WEB, *sorted(others - {WEB}))}


def _fleet(desired: Desired, wanted: Aim, name: str, instances: tuple[InstanceView, ...], now: dt.datetime) -> Fleet:
    deployment, count = desired.deployment, wanted.count(desired, name)
    goal = Goal(wanted.release, wanted.floor, count)
    if deployment is None:
        return make(Fleet(goal, wanted.mode, instances, process_type=name))
    strategy = deployment.strategy
    staged = wanted.mode in ("rolling", "steady") and not desired.singleton and count > 0
    stage = phases.stage(deployment, now) if staged else "over"
    if name != WEB and stage != "held":
        stage = "over"  # only what takes requests stands beside what took them before
    return make(
        Fleet(
            goal, wanted.mode, instances, strategy.surge(count), strategy.unavailable(count),
            ready_before=now - dt.timedelta(seconds=strategy.min_ready_s), stage=stage,
            old=_before(desired, deployment, name), beside=strategy.beside(count), process_type=name,
        )
    )  # fmt: skip


def _before(desired: Desired, deployment: DeploymentView, name: str) -> Goal:
    """What ran before, of this type; without a release that has it nothing is started."""
    previous = deployment.previous if deployment.previous is not None and deployment.previous.has(name) else None
    return Goal(previous, deployment.previous_floor, desired.count_of(name))


def _as_it_was(desired: Desired, deployment: DeploymentView, fleet: Fleet) -> Fleet:
    """Kept by the release before, whatever is of it and whatever is not; only the lost and the drained are replaced."""
    before = _before(desired, deployment, fleet.process_type)
    count = before.count if before.release is not None else len({i.slot for i in fleet.wanted})
    strategy = deployment.strategy
    return make(
        replace(
            fleet, goal=replace(before, count=count), mode="frozen", stage="over", surge=strategy.surge(count),
            unavailable=strategy.unavailable(count),
        )
    )  # fmt: skip


def _leaves(wanted: Aim, fleet: Fleet) -> bool:
    """The new release has no such type."""
    return wanted.release is not None and not wanted.release.has(fleet.process_type)


def _settled(fleet: Fleet) -> bool:
    return fleet.stage in ("over", "warm") and all(fleet.satisfied(slot) for slot in fleet.slots)


def settled(among: Sequence[Crew]) -> int:
    """The slots that serve as wished, of all types."""
    return sum(1 for crew in among for slot in crew.fleet.slots if crew.fleet.satisfied(slot))

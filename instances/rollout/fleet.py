"""The instances of one app, held against a goal: what fits it, what is outdated, which slots are kept. Pure.

Owns the classification that all strategies share. Decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from instances.plan.model import InstanceView, ReleaseView

Mode = Literal["steady", "frozen", "rolling", "reverting"]


@dataclass(frozen=True, slots=True)
class Goal:
    """`count` instances of `release`, none of them made before deployment `floor`."""

    release: ReleaseView | None
    floor: int
    count: int


@dataclass(frozen=True, slots=True)
class Start:
    slot: int
    why: str
    replaces: tuple[int, ...] = ()
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Moves:
    """What a strategy wants: starts without nodes yet, stops, and ended rows to be done with."""

    starts: tuple[Start, ...] = ()
    stops: tuple[tuple[InstanceView, str], ...] = ()
    forgets: tuple[tuple[InstanceView, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Fleet:
    """`frozen`: after a failure with nothing to go back to, whatever runs is let be, whichever release it is of."""

    goal: Goal
    mode: Mode
    instances: tuple[InstanceView, ...]
    surge: int = 1
    unavailable: int = 0
    slots: tuple[int, ...] = field(default=())

    @property
    def floor(self) -> int:
        """The slots that stay served, as far as that is ours to choose."""
        return max(self.goal.count - self.unavailable, 0)

    @property
    def wanted(self) -> tuple[InstanceView, ...]:
        return tuple(i for i in self.instances if i.wanted)

    def outdated(self, instance: InstanceView) -> str | None:
        """Why the instance is to make room, or None."""
        release = self.goal.release
        if instance.live and instance.node_draining:
            return f"its node {instance.node_name} is draining"
        if self.mode == "frozen" or release is None:
            return None
        if instance.release_id != release.id:
            return f"replaced by version {release.version} (release {release.number})"
        if instance.deployment_id < self.goal.floor:
            return "restart asked for"
        return None

    def fits(self, instance: InstanceView) -> bool:
        return self.outdated(instance) is None

    def here(self, slot: int) -> tuple[InstanceView, ...]:
        return tuple(i for i in self.wanted if i.slot == slot)

    def best(self, slot: int) -> InstanceView | None:
        """The instance of the slot that counts: fitting, available before not, old before young."""
        fitting = [i for i in self.here(slot) if self.fits(i)]
        return min(fitting, key=lambda i: (not i.available, i.id), default=None)

    def last_outdated(self, slot: int) -> InstanceView | None:
        """The outdated one that holds the slot until its successor serves: available before not, old before young."""
        outdated = [i for i in self.here(slot) if not self.fits(i)]
        return min(outdated, key=lambda i: (not i.available, i.id), default=None)

    def served(self, slot: int) -> bool:
        return any(i.available for i in self.here(slot))

    def completed(self, slot: int) -> InstanceView | None:
        """The one that did its work and ended: its slot needs nobody."""
        done = [i for i in self.instances if i.slot == slot and i.completed and self.fits(i)]
        return max(done, key=lambda i: i.id, default=None)

    def ended(self, slot: int) -> tuple[InstanceView, ...]:
        """Rows of the slot that ended though they were wanted, oldest first."""
        return tuple(sorted((i for i in self.instances if i.slot == slot and not i.live), key=lambda i: i.id))

    def satisfied(self, slot: int) -> bool:
        best = self.best(slot)
        return best.available if best is not None else self.completed(slot) is not None


def make(goal: Goal, mode: Mode, instances: tuple[InstanceView, ...], *, surge: int = 1, unavailable: int = 0) -> Fleet:
    bare = Fleet(goal, mode, instances, surge, unavailable)
    return Fleet(goal, mode, instances, surge, unavailable, _kept_slots(bare))


def _kept_slots(fleet: Fleet) -> tuple[int, ...]:
    """The `count` slots to keep: those that serve first, then those that are occupied, then the lowest free numbers.

    So scaling down takes what does not work before what does.
    """
    rank: dict[int, int] = {}
    for instance in fleet.instances:
        if instance.desired != "run":
            continue
        value = 0 if instance.available else 1 if instance.live or instance.completed else 2
        rank[instance.slot] = min(value, rank.get(instance.slot, 3))
    kept = sorted(rank, key=lambda slot: (rank[slot], slot))[: fleet.goal.count]
    free = 0
    while len(kept) < fleet.goal.count:
        if free not in rank:
            kept.append(free)
        free += 1
    return tuple(sorted(kept))

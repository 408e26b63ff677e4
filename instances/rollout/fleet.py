"""The instances of one process type of an app, held against a goal: what fits it, what is outdated, which slots
are kept. Pure.

Owns the classification that all strategies share. Decides nothing.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from instances.plan.model import WEB, InstanceView, ReleaseView

Mode = Literal["steady", "frozen", "rolling", "reverting"]
Stage = Literal["over", "beside", "warm", "held"]


@dataclass(frozen=True, slots=True)
class Goal:
    """`count` instances of `release`, none of them made before deployment `floor`."""

    release: ReleaseView | None
    floor: int
    count: int

    def made(self, instance: InstanceView) -> bool:
        """Whether the instance is of that release and young enough."""
        return (
            self.release is not None
            and instance.release_id == self.release.id
            and instance.deployment_id >= self.floor
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Start:
    """`last`: the ended one of its kind that it replaces, from which its back-off is counted."""

    slot: int
    release: ReleaseView
    why: str
    replaces: tuple[int, ...] = ()
    attempt: int = 0
    last: InstanceView | None = None


@dataclass(frozen=True, slots=True)
class Moves:
    """What a strategy wants: starts without nodes yet, stops, and ended rows to be done with."""

    starts: tuple[Start, ...] = ()
    stops: tuple[tuple[InstanceView, str], ...] = ()
    forgets: tuple[tuple[InstanceView, str], ...] = ()

    def __add__(self, other: Moves) -> Moves:
        return Moves(self.starts + other.starts, self.stops + other.stops, self.forgets + other.forgets)


@dataclass(frozen=True)
class Fleet:
    """`frozen`: whatever runs is let be, whichever release it is of (after a failure with nothing to go back to).

    `stage`: the new release takes the slots over one by one (`over`), stands beside the old one (`beside`), has taken
    over while the old one is kept (`warm`), or nothing moves on (`held`); in all but the first `old` is what the
    other side runs. Healthy since `ready_before` or earlier is ready; None: as soon as it is healthy.
    """

    goal: Goal
    mode: Mode
    instances: tuple[InstanceView, ...]
    surge: int = 1
    unavailable: int = 0
    slots: tuple[int, ...] = field(default=())
    ready_before: dt.datetime | None = None
    stage: Stage = "over"
    old: Goal | None = None
    beside: int = 0
    process_type: str = WEB

    @property
    def floor(self) -> int:
        """The slots that stay served, as far as that is ours to choose."""
        return max(self.goal.count - self.unavailable, 0)

    @cached_property
    def wanted(self) -> tuple[InstanceView, ...]:
        return tuple(i for i in self.instances if i.wanted)

    @cached_property
    def _in_slot(self) -> dict[int, tuple[InstanceView, ...]]:
        """Every row by its slot: each slot is asked about several times, and an app may have thousands."""
        return _by_slot(self.instances)

    @cached_property
    def _wanted_in_slot(self) -> dict[int, tuple[InstanceView, ...]]:
        return _by_slot(self.wanted)

    def ready(self, instance: InstanceView) -> bool:
        """New capacity: its checks passed, and it has stayed up since."""
        if not instance.available:
            return False
        since = instance.healthy_since
        return since is None or self.ready_before is None or since <= self.ready_before

    def outdated(self, instance: InstanceView) -> str | None:
        """Why the instance is to make room, or None."""
        release = self.goal.release
        if instance.live and instance.node_draining:
            return f"its node {instance.node_name} is draining"
        if self.mode == "frozen" or release is None:
            return None
        if instance.release_id != release.id:
            return f"replaced by version {release.version} (release {release.number})"
        return None if self.goal.made(instance) else "restart asked for"

    def fits(self, instance: InstanceView) -> bool:
        return self.outdated(instance) is None

    def here(self, slot: int) -> tuple[InstanceView, ...]:
        return self._wanted_in_slot.get(slot, ())

    def best(self, slot: int) -> InstanceView | None:
        """The instance of the slot that counts: fitting, ready before not, old before young."""
        return self._first([i for i in self.here(slot) if self.fits(i)])

    def last_outdated(self, slot: int) -> InstanceView | None:
        """The outdated one that holds the slot until its successor serves: ready before not, of the release that is
        wanted (only its node is not) before others, old before young."""
        return self._first([i for i in self.here(slot) if not self.fits(i)])

    def served(self, slot: int) -> bool:
        return any(self.ready(i) for i in self.here(slot))

    def completed(self, slot: int) -> InstanceView | None:
        """The one that did its work and ended: its slot needs nobody."""
        done = [i for i in self._in_slot.get(slot, ()) if i.completed and self.fits(i)]
        return max(done, key=lambda i: i.id, default=None)

    def ended(self, slot: int) -> tuple[InstanceView, ...]:
        """Rows of the slot that ended though they were wanted, oldest first."""
        return tuple(sorted((i for i in self._in_slot.get(slot, ()) if not i.live), key=lambda i: i.id))

    def satisfied(self, slot: int) -> bool:
        best = self.best(slot)
        return self.ready(best) if best is not None else self.completed(slot) is not None

    def _first(self, among: list[InstanceView]) -> InstanceView | None:
        def rank(instance: InstanceView) -> tuple[bool, bool, bool, int]:
            return not self.ready(instance), not instance.available, not self.goal.made(instance), instance.id

        return min(among, key=rank, default=None)


def _by_slot(instances: Iterable[InstanceView]) -> dict[int, tuple[InstanceView, ...]]:
    found: defaultdict[int, list[InstanceView]] = defaultdict(list)
    for instance in instances:
        found[instance.slot].append(instance)
    return {slot: tuple(rows) for slot, rows in found.items()}


def make(fleet: Fleet) -> Fleet:
    """`fleet` with the slots that are kept: where two sides stand beside each other, the new one's."""
    if fleet.stage not in ("beside", "warm"):
        return replace(fleet, slots=kept_slots(fleet))
    new = tuple(i for i in fleet.instances if fleet.goal.made(i))
    return replace(fleet, slots=kept_slots(replace(fleet, instances=new)))


def kept_slots(fleet: Fleet, first: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The `count` slots to keep: those that serve as wished first, then those that serve, then those that are
    occupied, then free ones: of `first`, then the lowest numbers.

    So scaling down takes what does not work before what does.
    """
    rank: dict[int, int] = {}
    for instance in fleet.instances:
        if instance.desired != "run":
            continue
        rank[instance.slot] = min(_worth(fleet, instance), rank.get(instance.slot, 4))
    kept = sorted(rank, key=lambda slot: (rank[slot], slot))[: fleet.goal.count]
    free = [slot for slot in (*first, *range(len(rank) + len(first) + fleet.goal.count)) if slot not in rank]
    kept += list(dict.fromkeys(free))[: fleet.goal.count - len(kept)]
    return tuple(sorted(kept))


def _worth(fleet: Fleet, instance: InstanceView) -> int:
    if instance.available:
        return 0 if fleet.mode == "frozen" or fleet.goal.made(instance) else 1
    return 2 if instance.live or instance.completed else 3

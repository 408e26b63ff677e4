"""Two releases of one app side by side in the same slots: the new side, and the old one. Pure.

Owns what keeps each side as it is (the lost are replaced by their like, draining nodes are left) without one pushing
the other out. Each side is a fleet of its own, kept by the rules of `rolling`; the surge is shared by both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from instances.plan.model import InstanceView
from instances.rollout.fleet import Fleet, Goal, Moves, kept_slots
from instances.rollout.rolling import rolling


def beside(fleet: Fleet) -> Moves:
    """`fleet.beside` instances of the new release, in addition to all of the old."""
    old = _old_side(fleet, fleet.goal.count)
    old = replace(old, slots=kept_slots(old), surge=fleet.surge)
    first = rolling(old)
    whole = sum(1 for slot in old.slots if old.served(slot)) >= old.floor
    new = _new_side(fleet, fleet.beside)
    new = replace(
        new, slots=kept_slots(new, first=old.slots), surge=_left(fleet.surge, old, first),
        unavailable=fleet.unavailable if whole else 0,
    )  # fmt: skip
    return first + rolling(new)


def hold(fleet: Fleet) -> Moves:
    """Nothing moves on: each slot keeps the sides that it has."""
    old_slots, new_slots = _occupied(fleet)
    spare = max(fleet.surge - len(set(old_slots) & set(new_slots)), 0)
    unserved = sum(1 for slot in fleet.slots if slot not in old_slots and not fleet.served(slot))
    old = replace(
        _old_side(fleet, len(old_slots)), slots=old_slots, surge=spare,
        unavailable=max(fleet.unavailable - unserved, 0),
    )  # fmt: skip
    first = rolling(old)
    new = _new_side(fleet, len(new_slots))
    return first + rolling(replace(new, slots=new_slots, surge=_left(spare, old, first), unavailable=0))


def warm(fleet: Fleet) -> Moves:
    """The new side is the app; of the old one what lives is let be, until room is short or its node is drained."""
    new = _new_side(fleet, fleet.goal.count)
    new = replace(new, slots=kept_slots(new), surge=fleet.surge)
    short = any(i.status == "pending" for i in new.wanted)
    stops, forgets = [], []
    for instance in _others(fleet):
        if not instance.live:
            forgets.append((instance, "it was only kept warm"))
        elif instance.wanted and (short or instance.node_draining):
            why = "the new release needs its room" if short else f"its node {instance.node_name} is draining"
            stops.append((instance, why))
    return rolling(new) + Moves(stops=tuple(stops), forgets=tuple(forgets))


def ready_beside(fleet: Fleet) -> bool:
    """Whether as many of the new side are ready as are to run beside the old one."""
    new = _new_side(fleet, fleet.beside)
    new = replace(new, slots=kept_slots(new))
    return all(new.satisfied(slot) for slot in new.slots)


def old_serves(fleet: Fleet) -> bool:
    """Whether the old side alone could take all requests: an available one of it for each slot."""
    return len({i.slot for i in _others(fleet) if i.available}) >= fleet.goal.count > 0


def _left(spare: int, old: Fleet, moves: Moves) -> int:
    """The surge that the old side leaves to the new one."""
    above = len(old.wanted) + len(moves.starts) - len(moves.stops) - len(old.slots)
    return max(spare - max(above, 0), 0)


def _new_side(fleet: Fleet, count: int) -> Fleet:
    mine = tuple(i for i in fleet.instances if fleet.goal.made(i))
    return replace(fleet, goal=replace(fleet.goal, count=count), instances=mine)


def _old_side(fleet: Fleet, count: int) -> Fleet:
    """Frozen: leftovers of a superseded rollout are let be as well, but the release before takes the place of the
    lost."""
    release = fleet.old.release if fleet.old is not None else None
    floor = fleet.old.floor if fleet.old is not None else 0
    return replace(fleet, goal=Goal(release, floor, count), mode="frozen", instances=tuple(_others(fleet)))


def _others(fleet: Fleet) -> Iterable[InstanceView]:
    return (i for i in fleet.instances if not fleet.goal.made(i))


def _occupied(fleet: Fleet) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the kept slots those with an old and those with a new instance; a lost one counts where it was the last."""
    old, new = [], []
    for slot in fleet.slots:
        here = fleet.here(slot) or fleet.ended(slot)[-1:]
        if any(not fleet.goal.made(i) for i in here):
            old.append(slot)
        if any(fleet.goal.made(i) for i in here):
            new.append(slot)
    return tuple(old), tuple(new)

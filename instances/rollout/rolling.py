"""rolling: a slot's new instance starts beside the old one, and the old one stops once the new one serves. Pure.

Never more wanted instances than desired + surge, never fewer served slots than the floor by choice.
"""

from __future__ import annotations

from instances.plan.model import InstanceView, ReleaseView
from instances.rollout.fleet import Fleet, Moves, Start


def rolling(fleet: Fleet) -> Moves:
    stops = dict(_excess(fleet))
    stops |= _replaced(fleet)
    starts, made_room = _starts(fleet, stops)
    return moves(fleet, starts, stops | made_room)


def moves(fleet: Fleet, starts: list[Start], stops: dict[InstanceView, str]) -> Moves:
    """With the ended rows that nobody needs any more."""
    replaced = {row for start in starts for row in start.replaces}
    forgets = []
    for row in fleet.instances:
        if row.live or row.id in replaced:
            continue
        why = _forgettable(fleet, row)
        if why is not None:
            forgets.append((row, why))
    return Moves(tuple(starts), tuple(stops.items()), tuple(forgets))


def _forgettable(fleet: Fleet, row: InstanceView) -> str | None:
    if row.slot not in fleet.slots:
        return "its slot is no longer wanted"
    if fleet.best(row.slot) is not None:
        return "its slot has another instance"
    done = fleet.completed(row.slot)
    if done is not None and done != row:
        return "its slot's work is done"
    return None


def _excess(fleet: Fleet) -> dict[InstanceView, str]:
    """What stands in no kept slot, and what is twice in one: one outdated instance serves a slot until its successor
    does, and no more than one."""
    stops: dict[InstanceView, str] = {}
    for instance in fleet.wanted:
        if instance.slot not in fleet.slots:
            stops[instance] = f"scaled to {fleet.goal.count}"
        elif fleet.fits(instance):
            if instance != fleet.best(instance.slot):
                stops[instance] = "its slot has another instance"
        elif instance != fleet.last_outdated(instance.slot):
            stops[instance] = fleet.outdated(instance) or "its slot has another instance"
    return stops


def _replaced(fleet: Fleet) -> dict[InstanceView, str]:
    """Outdated instances whose successor serves; while reverting also those that do not serve anyhow."""
    stops: dict[InstanceView, str] = {}
    for slot in fleet.slots:
        served = fleet.satisfied(slot)
        for instance in fleet.here(slot):
            why = fleet.outdated(instance)
            if why is not None and (served or (fleet.mode == "reverting" and not instance.available)):
                stops[instance] = why
    return stops


def _starts(fleet: Fleet, stops: dict[InstanceView, str]) -> tuple[list[Start], dict[InstanceView, str]]:
    """New instances for slots that have no fitting one, within the surge; old ones that make room for them."""
    starts: list[Start] = []
    room: dict[InstanceView, str] = {}
    release = fleet.goal.release
    if release is None:
        return starts, room
    budget = fleet.goal.count + fleet.surge - (len(fleet.wanted) - len(stops))
    served = sum(1 for slot in fleet.slots if fleet.served(slot))
    for slot in sorted(fleet.slots, key=lambda s: (bool(fleet.here(s)), fleet.served(s), s)):
        if fleet.best(slot) is not None or fleet.completed(slot) is not None:
            continue
        old = tuple(i for i in fleet.here(slot) if i not in stops)
        if budget <= 0 and old and _may_go(fleet, old, served):
            room |= dict.fromkeys(old, "makes room for its successor")
            served -= 1 if fleet.served(slot) else 0
            budget += len(old)
        if budget > 0:
            starts.append(start(fleet, slot, release))
            budget -= 1
    return starts, room


def _may_go(fleet: Fleet, old: tuple[InstanceView, ...], served: int) -> bool:
    """Whether a slot may be without an instance for a while: only where unavailability was permitted."""
    if fleet.unavailable == 0:
        return False
    return served - 1 >= fleet.floor or (fleet.surge == 0 and not any(i.available for i in old))


def start(fleet: Fleet, slot: int, release: ReleaseView) -> Start:
    """The successor for a slot, with what it succeeds."""
    rows = fleet.ended(slot)
    last = rows[-1] if rows else None
    old = fleet.here(slot)
    if old:
        why = fleet.outdated(old[0]) or "another instance is wanted"
    elif last is not None:
        what = f": {last.detail}" if last.detail else ""
        why = f"instance {last.id} {'ended' if last.status == 'stopped' else f'is {last.status}'}{what}"
    else:
        why = "1 instance is wanted" if fleet.goal.count == 1 else f"{fleet.goal.count} instances are wanted"
    alike = last if last is not None and fleet.fits(last) else None
    attempt = alike.attempt + 1 if alike is not None and not alike.long_lived else 0
    return Start(slot, release, why[:300], tuple(row.id for row in rows), attempt, alike)

"""recreate: everything outdated stops and ends, then the new instances start. Pure.

For apps that must never run twice (every `singleton`): a slot's successor starts only after the slot is empty.
"""

from __future__ import annotations

from instances.plan.model import InstanceView
from instances.rollout.fleet import Fleet, Moves
from instances.rollout.rolling import moves, start


def recreate(fleet: Fleet) -> Moves:
    stops: dict[InstanceView, str] = {}
    for instance in fleet.wanted:
        why = fleet.outdated(instance)
        if instance.slot not in fleet.slots:
            stops[instance] = f"scaled to {fleet.goal.count}"
        elif why is not None:
            stops[instance] = why
        elif instance != fleet.best(instance.slot):
            stops[instance] = "its slot has another instance"
    leaving = [i for i in fleet.instances if i.live and (i in stops or not i.wanted)]
    release = fleet.goal.release
    if release is None or leaving:
        return moves(fleet, [], stops)
    empty = [slot for slot in fleet.slots if fleet.best(slot) is None and fleet.completed(slot) is None]
    return moves(fleet, [start(fleet, slot, release) for slot in empty], stops)

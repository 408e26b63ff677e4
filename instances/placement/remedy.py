"""Nothing fits: the smallest change that would make it fit. Pure.

Owns what can be changed and which change counts as smaller: none that costs data, then fewer changes, then what the
app's owner can do alone, then the smaller amount, then the node's name. All changes of an answer belong to one node and
are needed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instances.placement.model import Change, Need, NodeView

MIN_MEMORY_MB = 4  # the least that an app may ask for (apps.fields)
MIN_CPU = 0.01

# The smaller the rank, the easier: what the app's owner can do comes before what an operator has to.
_EASE = {
    "lower_memory": 0, "lower_cpu": 1, "allow_neighbours": 2, "drop_constraint": 3, "free_memory": 4, "free_cpu": 5,
    "activate_node": 6, "wait_for_stops": 7, "add_runtime": 8, "bring_node_back": 9, "add_node": 10,
    "delete_volumes": 11, "wait_for_volume": 12,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Room:
    """What is free on a node, and how many instances of the app it has."""

    memory_mb: int
    cpu: float
    own: int = 0


def smallest(nodes: Sequence[NodeView], rooms: Sequence[Room], need: Need) -> tuple[Change, ...]:
    """The changes that would let one more instance fit. Empty only when something fits already."""
    best: tuple[tuple[object, ...], tuple[Change, ...]] | None = None
    if need.held:
        return (Change("wait_for_volume", f"wait for its end: {need.held}", need.pinned_to),)
    if need.pinned_to and all(node.name != need.pinned_to for node in nodes):
        text = f"bring {need.pinned_to} back, which holds the app's volumes and is no node any more"
        return (Change("bring_node_back", text, need.pinned_to),)
    for node, room in zip(nodes, rooms, strict=True):
        changes = changes_for(node, room, need)
        weight = (*_weight(changes), node.name)
        if best is None or weight < best[0]:
            best = (weight, changes)
    if best is None:
        text = f"add a node with {need.memory_mb} MB of free memory"
        return (Change("add_node", text, amount=need.memory_mb),)
    return best[1]


def changes_for(node: NodeView, room: Room, need: Need) -> tuple[Change, ...]:
    """Everything that stands in the way on this node, as changes."""
    found = [_volumes(node, need), _status(node), _runtime(node, need), _constraints(node, need)]
    found += [_neighbours(node, room, need), _memory(node, room, need), _cpu(node, room, need)]
    return tuple(change for changes in found for change in changes)


def _weight(changes: Sequence[Change]) -> tuple[bool, int, list[int], float]:
    apart = any(c.kind == "delete_volumes" for c in changes)  # data is never the smaller change
    return apart, len(changes), sorted(_EASE[c.kind] for c in changes), sum(c.amount for c in changes)


def _volumes(node: NodeView, need: Need) -> list[Change]:
    if need.pinned_to in ("", node.name):
        return []
    text = f"delete the app's volumes, which are on {need.pinned_to}, and make new ones on {node.name}"
    return [Change("delete_volumes", text, node.name)]


def _status(node: NodeView) -> list[Change]:
    """A node that is away takes its leftovers' end with it when it comes back; one that drains may have both."""
    changes = []
    if node.status == "draining":
        changes.append(Change("activate_node", f"activate {node.name}, which is draining", node.name))
    elif node.status != "ready":
        return [Change("bring_node_back", f"bring {node.name} back, which is {node.status}", node.name)]
    if node.leftovers:
        text = f"wait until {node.name} has stopped {node.leftovers} instances from before it was lost"
        changes.append(Change("wait_for_stops", text, node.name))
    return changes


def _runtime(node: NodeView, need: Need) -> list[Change]:
    if need.runtime in node.runtimes:
        return []
    return [Change("add_runtime", f"give {node.name} the {need.runtime} runtime", node.name)]


def _constraints(node: NodeView, need: Need) -> list[Change]:
    return [
        Change("drop_constraint", f"drop the constraint {constraint}, or give {node.name} such a label", node.name)
        for constraint in need.constraints
        if not constraint.holds(node.labels)
    ]


def _neighbours(node: NodeView, room: Room, need: Need) -> list[Change]:
    if need.anti_affinity != "required" or not room.own:
        return []
    text = f"allow a second instance on {node.name} (placement.anti_affinity: preferred)"
    return [Change("allow_neighbours", text, node.name)]


def _memory(node: NodeView, room: Room, need: Need) -> list[Change]:
    missing = need.memory_mb - room.memory_mb
    if missing <= 0:
        return []
    if room.memory_mb >= MIN_MEMORY_MB:
        text = f"lower memory_mb from {need.memory_mb} to {room.memory_mb}, or free {missing} MB on {node.name}"
        return [Change("lower_memory", text, node.name, missing)]
    return [Change("free_memory", f"free {missing} MB on {node.name}", node.name, missing)]


def _cpu(node: NodeView, room: Room, need: Need) -> list[Change]:
    missing = need.cpu - room.cpu
    if missing <= 0:
        return []
    if room.cpu >= MIN_CPU:
        text = f"lower cpu from {need.cpu:g} to {room.cpu:g}, or free {missing:g} on {node.name}"
        return [Change("lower_cpu", text, node.name, missing)]
    return [Change("free_cpu", f"free a CPU weight of {missing:g} on {node.name}", node.name, missing)]

"""Why a node cannot take an instance: one function a reason. Pure.

Owns the rules. `standing` ones depend on the node and on what kind of instance it is, and hold for a whole planning
pass; `passing` ones depend on what is free, and change with every placement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from instances.placement.model import Need, NodeView

Filter = Callable[[NodeView, Need], str | None]


def is_ready(node: NodeView, _need: Need) -> str | None:
    return None if node.status == "ready" else f"the node is {node.status}"


def has_cleared_up(node: NodeView, _need: Need) -> str | None:
    if not node.leftovers:
        return None
    return f"the node still has to stop {node.leftovers} instances from before it was lost"


def has_runtime(node: NodeView, need: Need) -> str | None:
    return None if need.runtime in node.runtimes else f"the node has no {need.runtime} runtime"


def meets_constraints(node: NodeView, need: Need) -> str | None:
    for constraint in need.constraints:
        if not constraint.holds(node.labels):
            return f"the constraint {constraint} does not hold"
    return None


def may_start(_node: NodeView, need: Need) -> str | None:
    return need.held or None


def has_volumes(node: NodeView, need: Need) -> str | None:
    if need.pinned_to in ("", node.name):
        return None
    return f"the app's volumes are on {need.pinned_to}"


STANDING: tuple[Filter, ...] = (may_start, has_volumes, is_ready, has_cleared_up, has_runtime, meets_constraints)


def standing(node: NodeView, need: Need) -> str | None:
    """The first reason that what is free cannot change; None when there is none."""
    return next(reasons(node, need), None)


def reasons(node: NodeView, need: Need) -> Iterator[str]:
    return (text for check in STANDING if (text := check(node, need)) is not None)


def too_little(need: Need, free_memory_mb: int, free_cpu: float) -> str | None:
    """The reason in what is free."""
    if free_memory_mb < need.memory_mb:
        return f"{need.memory_mb} MB of memory are needed, {max(free_memory_mb, 0)} are free"
    if free_cpu < need.cpu:
        return f"a CPU weight of {need.cpu:g} is needed, {max(round(free_cpu, 2), 0):g} is free"
    return None


def too_close(need: Need, own: int) -> str | None:
    """The reason in the app's own instances on the node."""
    if need.anti_affinity == "required" and own:
        return f"the node has {own} of the app's instances of this type, and anti_affinity is required"
    return None

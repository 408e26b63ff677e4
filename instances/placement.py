"""On which node an instance goes, and why on no other. Pure.

Owns filters (each says why it refuses) and the score: fewest instances of this app, then least allocated memory, then
the name, so that the same input always gives the same answer. Must not look anything up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

KEPT_VERDICTS = 25  # of refused nodes; on more they are counted by reason


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on one node label, as in `placement.constraints`."""

    label: str
    op: str = "="
    value: Any = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        found = labels.get(self.label)
        if self.op == "exists":
            return found is not None
        if self.op in ("in", "not_in"):
            listed = self.value if isinstance(self.value, (list, tuple)) else [self.value]
            return (found in listed) == (self.op == "in")
        return bool(found == self.value) == (self.op == "=")

    def __str__(self) -> str:
        return f"{self.label} {self.op}" + ("" if self.op == "exists" else f" {self.value}")


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as placement sees it. `leftovers`: instances from before it was lost that still have to end there."""

    id: int
    name: str
    status: str
    memory_mb: int
    cpu_count: int
    memory_used_mb: int = 0
    cpu_used: float = 0.0
    runtimes: tuple[str, ...] = ("process",)
    labels: Mapping[str, str] = field(default_factory=dict)
    leftovers: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What one instance asks of a node."""

    memory_mb: int
    cpu: float
    runtime: str = "process"
    constraints: tuple[Constraint, ...] = ()
    cpu_overcommit: float = 16.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one node: `reason` says why it was chosen, passed over, or refused."""

    node: str
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """`node` is None when nothing fits; `reason` is one sentence either way."""

    node: NodeView | None
    reason: str
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        refused = [v for v in self.verdicts if not v.fits]
        shown = [v for v in self.verdicts if v.fits][:KEPT_VERDICTS] + refused[:KEPT_VERDICTS]
        return {
            "node": self.node.name if self.node else None,
            "reason": self.reason,
            "verdicts": [{"node": v.node, "fits": v.fits, "reason": v.reason} for v in shown],
            "nodes": len(self.verdicts),
        }


Filter = Callable[[NodeView, Need], str | None]


def _is_ready(node: NodeView, _need: Need) -> str | None:
    return None if node.status == "ready" else f"the node is {node.status}"


def _has_cleared_up(node: NodeView, _need: Need) -> str | None:
    if not node.leftovers:
        return None
    return f"the node still has to stop {node.leftovers} instances from before it was lost"


def _has_runtime(node: NodeView, need: Need) -> str | None:
    return None if need.runtime in node.runtimes else f"the node has no {need.runtime} runtime"


def _meets_constraints(node: NodeView, need: Need) -> str | None:
    for constraint in need.constraints:
        if not constraint.holds(node.labels):
            return f"the constraint {constraint} does not hold"
    return None


def _has_memory(node: NodeView, need: Need) -> str | None:
    free = node.memory_mb - node.memory_used_mb
    return None if free >= need.memory_mb else f"{need.memory_mb} MB of memory are needed, {max(free, 0)} are free"


def _has_cpu(node: NodeView, need: Need) -> str | None:
    free = node.cpu_count * need.cpu_overcommit - node.cpu_used
    return None if free >= need.cpu else f"a CPU weight of {need.cpu:g} is needed, {max(free, 0):g} is free"


FILTERS: tuple[Filter, ...] = (_is_ready, _has_cleared_up, _has_runtime, _meets_constraints, _has_memory, _has_cpu)


def choose(nodes: Sequence[NodeView], need: Need, own: Mapping[int, int]) -> Choice:
    """The node for one more instance of an app that has `own[node id]` instances on each node already."""
    fitting: list[tuple[tuple[int, int, str], NodeView]] = []
    refused: list[Verdict] = []
    for node in nodes:
        why = next((text for check in FILTERS if (text := check(node, need)) is not None), None)
        if why is None:
            fitting.append(((own.get(node.id, 0), node.memory_used_mb, node.name), node))
        else:
            refused.append(Verdict(node.name, False, why))
    if not fitting:
        return Choice(None, _nothing_fits(refused), tuple(refused))
    fitting.sort(key=lambda pair: pair[0])
    best = fitting[0][1]
    told = [Verdict(node.name, True, _score(score)) for score, node in fitting]
    return Choice(best, f"{best.name}: {_score(fitting[0][0])}", (*told, *refused))


def reserve(nodes: Sequence[NodeView], node_id: int, need: Need) -> tuple[NodeView, ...]:
    """The nodes after one more instance was put on `node_id`."""
    return tuple(
        replace(node, memory_used_mb=node.memory_used_mb + need.memory_mb, cpu_used=node.cpu_used + need.cpu)
        if node.id == node_id
        else node
        for node in nodes
    )


def read_constraints(placement: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """The constraints of `App.placement`."""
    return tuple(
        Constraint(str(item["label"]), str(item.get("op", "=")), item.get("value"))
        for item in placement.get("constraints") or ()
    )


def _score(score: tuple[int, int, str]) -> str:
    return f"{score[0]} instances of this app, {score[1]} MB allocated"


def _nothing_fits(refused: Sequence[Verdict]) -> str:
    if not refused:
        return "no node is known yet"
    counts: dict[str, int] = {}
    for verdict in refused:
        counts[verdict.reason] = counts.get(verdict.reason, 0) + 1
    parts = [f"{reason} ({count} of {len(refused)} nodes)" for reason, count in sorted(counts.items(), key=_most)]
    return ("no node fits: " + "; ".join(parts))[:300]


def _most(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]

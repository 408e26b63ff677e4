"""What placement speaks of: nodes, an instance's need, verdicts, and the smallest change that would help. Pure.

Owns the vocabulary only: `filters` refuses nodes, `pool` ranks them, `remedy` says what would help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

KEPT_VERDICTS = 25  # of fitting and of refused nodes each; the rest is counted

Rank = Literal["spread", "binpack"]
AntiAffinity = Literal["preferred", "required", "off"]


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
    """What one instance asks of a node, and how its app wants to be ranked.

    `anti_affinity` is about the app's own instances: `preferred` avoids a node that has one, `required` refuses it.
    `spread_by` names a label: values with fewer of the app's instances come first. `pinned_to` names the one node that
    holds the app's volumes; empty: any will do. `held` says why nothing of the app may start anywhere at the moment;
    empty: it may.
    """

    memory_mb: int
    cpu: float
    runtime: str = "process"
    constraints: tuple[Constraint, ...] = ()
    cpu_overcommit: float = 16.0
    rank: Rank = "spread"
    anti_affinity: AntiAffinity = "preferred"
    spread_by: str = ""
    pinned_to: str = ""
    held: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one node: `reason` says why it was chosen, passed over, or refused."""

    node: str
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that somebody could change. `text` is an instruction, the rest is for programs."""

    kind: str
    text: str
    node: str = ""
    amount: float = 0.0

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"kind": self.kind, "text": self.text}
        if self.node:
            shown["node"] = self.node
        if self.amount:
            shown["amount"] = self.amount
        return shown


@dataclass(frozen=True, slots=True)
class Choice:
    """`node` is None when nothing fits; `reason` is one sentence either way.

    `verdicts` has every node of a small cluster; of a large one the best and the first refused, `refused` counts all
    refusals that do not depend on what is free. `remedy` are the changes, all of them together, that would make it fit.
    """

    node: NodeView | None
    reason: str
    verdicts: tuple[Verdict, ...]
    nodes: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    remedy: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "node": self.node.name if self.node else None,
            "reason": self.reason,
            "verdicts": [{"node": v.node, "fits": v.fits, "reason": v.reason} for v in self.verdicts],
            "nodes": self.nodes,
        }
        if self.refused:
            shown["refused"] = dict(self.refused)
        if self.remedy:
            shown["remedy"] = [change.to_json() for change in self.remedy]
        return shown


def need_of(
    placement: Mapping[str, Any],
    memory_mb: int,
    cpu: float,
    runtime: str,
    cpu_overcommit: float,
    pinned_to: str = "",
    held: str = "",
) -> Need:
    """The need of one instance of an app whose field `placement` is given."""
    return Need(
        memory_mb, cpu, runtime, read_constraints(placement), cpu_overcommit,
        placement.get("strategy") or "spread", placement.get("anti_affinity") or "preferred",
        str(placement.get("spread_by") or ""), pinned_to, held,
    )  # fmt: skip


def read_constraints(placement: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """The constraints of `App.placement`."""
    return tuple(
        Constraint(str(item["label"]), str(item.get("op", "=")), _frozen(item.get("value")))
        for item in placement.get("constraints") or ()
    )


def _frozen(value: Any) -> Any:
    """Hashable: constraints are the key under which the nodes that meet them are remembered."""
    return tuple(value) if isinstance(value, list) else value

"""On which node an instance goes, and why on no other. Pure.

    model    nodes, needs, verdicts        filters  why a node cannot take it
    pool     the ranking, and what is left remedy   the smallest change that would help

`choose` and `reserve` serve one look at a tuple of nodes; a planning pass over many apps forks one `Pool`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from instances.placement.model import Change, Choice, Constraint, Need, NodeView, Verdict, need_of, read_constraints
from instances.placement.pool import Pool

__all__ = [
    "Change", "Choice", "Constraint", "Need", "NodeView", "Pool", "Verdict", "choose", "need_of", "read_constraints",
    "reserve",
]  # fmt: skip


def choose(nodes: Sequence[NodeView], need: Need, own: Mapping[int, int]) -> Choice:
    """The node for one more instance of an app that has `own[node id]` instances on each node already."""
    return Pool(nodes).choose(need, own)


def reserve(nodes: Sequence[NodeView], node_id: int, need: Need) -> tuple[NodeView, ...]:
    """The nodes after one more instance was put on `node_id`."""
    return tuple(
        replace(node, memory_used_mb=node.memory_used_mb + need.memory_mb, cpu_used=node.cpu_used + need.cpu)
        if node.id == node_id
        else node
        for node in nodes
    )

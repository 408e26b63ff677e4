"""On which node an instance goes, and why on no other. Pure.

    model    nodes, needs, verdicts        filters  why a node cannot take it
    pool     the ranking, and what is left remedy   the smallest change that would help

`choose` serves one look at a tuple of nodes; a planning pass over many apps forks one `Pool`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instances.placement.model import Change, Choice, Constraint, Need, NodeView, Verdict, need_of, read_constraints
from instances.placement.pool import Pool

__all__ = [
    "Change", "Choice", "Constraint", "Need", "NodeView", "Pool", "Verdict", "choose", "need_of", "read_constraints",
]  # fmt: skip


def choose(nodes: Sequence[NodeView], need: Need, own: Mapping[int, int]) -> Choice:
    """The node for one more instance of an app that has `own[node id]` instances on each node already."""
    return Pool(nodes).choose(need, own)

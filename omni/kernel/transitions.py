"""State machines as tables, and the one way to move a row along an edge.

Owns `TransitionTable` (pure) and `move` (a conditional UPDATE). A status column has no other writer. Must not know
any particular state machine: those are `states.py` in the app that owns the noun.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omni.kernel.errors import TransitionRefused


@dataclass(frozen=True, slots=True)
class TransitionTable:
    """Edges `{(from, to): owner}`; `backward` lists, by name, the few edges that go back on purpose.

    `order` ranks the states: an edge must lead to a higher rank unless it is listed in `backward`.
    """

    noun: str
    order: tuple[str, ...]
    edges: Mapping[tuple[str, str], str]
    terminal: frozenset[str]
    initial: str
    backward: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    shared: frozenset[str] = field(default_factory=frozenset)  # source states that more than one owner may leave

    def allows(self, source: str, target: str, owner: str) -> bool:
        return self.edges.get((source, target)) == owner

    def sources(self, target: str, owner: str) -> frozenset[str]:
        """The states from which `owner` may move to `target`."""
        return frozenset(a for (a, b), who in self.edges.items() if b == target and who == owner)

    def faults(self) -> list[str]:
        """What is wrong with the table itself; empty for a sound one (each app's test asserts that)."""
        found: list[str] = []
        rank = {state: i for i, state in enumerate(self.order)}
        for (source, target), owner in self.edges.items():
            if source not in rank or target not in rank:
                found.append(f"{source}→{target} names an unknown state")
            elif rank[target] <= rank[source] and (source, target) not in self.backward:
                found.append(f"{source}→{target} moves back")
            if source in self.terminal:
                found.append(f"{source} is terminal and has an exit ({owner})")
        for state in self.order:
            owners = {who for (source, _), who in self.edges.items() if source == state}
            if len(owners) > 1 and state not in self.shared:
                found.append(f"{state} has more than one owner: {sorted(owners)}")
            if state not in self.terminal and not owners:
                found.append(f"{state} is not terminal and has no exit")
        found += [f"{state} cannot be reached" for state in self.order if state not in self._reachable()]
        return found

    def _reachable(self) -> set[str]:
        seen, todo = {self.initial}, [self.initial]
        while todo:
            here = todo.pop()
            for source, target in self.edges:
                if source == here and target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen


def move(
    model: Any,
    pk: int,
    *,
    table: TransitionTable,
    to: str,
    owner: str,
    source: str | None = None,
    match: Mapping[str, Any] | None = None,
    column: str = "status",
    **fields: Any,
) -> str:
    """Move one row to state `to` by a conditional UPDATE; returns the state that it left.

    `source` narrows the start to one state, `match` adds conditions (a lease token). The row's `revision` grows.
    Raises TransitionRefused, with the actual state, when no edge of `owner` leads there or another writer won.
    """
    from django.db.models import F  # the table half of this module must import without Django

    allowed = table.sources(to, owner)
    starts = allowed & {source} if source is not None else allowed
    actual = model.objects.filter(pk=pk).values_list(column, flat=True).first()
    if actual not in starts:
        raise TransitionRefused(table.noun, to, actual)
    updated = model.objects.filter(pk=pk, **{column: actual}, **(match or {})).update(
        **{column: to}, revision=F("revision") + 1, **fields
    )
    if updated != 1:
        raise TransitionRefused(table.noun, to, model.objects.filter(pk=pk).values_list(column, flat=True).first())
    return str(actual)

"""The nodes of one planning pass: who takes the next instance, and what is left afterwards. Pure.

Owns ranking and its speed. What nodes refuse for good is worked out once for each kind of need; the rest stand in one
order, least (or most) allocated first, and a choice walks that order only as far as it needs. A fork shares what never
changes and copies what does, so that one app's plan does not move another's.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from instances.placement.filters import standing, too_close, too_little
from instances.placement.model import KEPT_VERDICTS, Choice, Constraint, Need, NodeView, Verdict
from instances.placement.remedy import Room, smallest

_NODE_BITS = 20  # of an order's entry: the node's place by name; the memory that is allocated stands above it
_NODE_MASK = (1 << _NODE_BITS) - 1


@dataclass(frozen=True, slots=True)
class _Class:
    """What one kind of need meets on the nodes, whatever is free: which may take it, and why others may not."""

    open: bytearray
    refused: tuple[Verdict, ...]
    counts: Mapping[str, int]


@dataclass(slots=True)
class _Fixed:
    """What no placement changes."""

    nodes: tuple[NodeView, ...]  # by name
    place: dict[int, int]  # node id → index
    classes: dict[tuple[str, tuple[Constraint, ...], str, str], _Class] = field(default_factory=dict)
    labels: dict[str, list[str | None]] = field(default_factory=dict)  # a label's value on each node

    def values_of(self, label: str) -> list[str | None]:
        if label not in self.labels:
            self.labels[label] = [node.labels.get(label) for node in self.nodes]
        return self.labels[label]


class Pool:
    """`choose` looks, `take` reserves. Deterministic: the same nodes and calls give the same answers."""

    __slots__ = ("_cpu", "_fixed", "_memory", "_order")

    def __init__(self, nodes: Sequence[NodeView]) -> None:
        ordered = tuple(sorted(nodes, key=lambda node: (node.name, node.id)))
        self._fixed = _Fixed(ordered, {node.id: index for index, node in enumerate(ordered)})
        self._memory = [node.memory_used_mb for node in ordered]
        self._cpu = [node.cpu_used for node in ordered]
        self._order = sorted((used << _NODE_BITS) | index for index, used in enumerate(self._memory))

    def fork(self) -> Pool:
        """The same nodes with books of their own."""
        other = object.__new__(Pool)
        other._fixed = self._fixed
        other._memory, other._cpu, other._order = self._memory.copy(), self._cpu.copy(), self._order.copy()
        return other

    def choose(self, need: Need, own: Mapping[int, int]) -> Choice:
        """The node for one more instance of an app that has `own[node id]` instances on each node already."""
        kind = self._class(need)
        walk = _Walk(self, need, own, kind)
        fitting = walk.best(KEPT_VERDICTS)
        nodes = self._fixed.nodes
        refused = (*walk.refused, *kind.refused)[:KEPT_VERDICTS]
        if not fitting:
            room = [self._room(index, need, own) for index in range(len(nodes))]
            remedy = smallest(nodes, room, need)
            reason = _nothing_fits({**kind.counts, **walk.shortages()}, len(nodes))
            return Choice(None, reason, refused, len(nodes), kind.counts, remedy)
        told = [Verdict(nodes[index].name, True, self._score(index, own, need)) for index in fitting]
        best = nodes[fitting[0]]
        return Choice(best, f"{best.name}: {told[0].reason}", (*told, *refused), len(nodes), kind.counts)

    def take(self, node_id: int, memory_mb: int, cpu: float) -> None:
        """One more instance stands on the node. An unknown node is no error: it has gone meanwhile."""
        index = self._fixed.place.get(node_id)
        if index is None:
            return
        used = self._memory[index]
        del self._order[bisect_left(self._order, (used << _NODE_BITS) | index)]
        self._memory[index] = used + memory_mb
        self._cpu[index] += cpu
        insort(self._order, (self._memory[index] << _NODE_BITS) | index)

    def free(self, node_id: int) -> int:
        """Megabytes that nobody has asked for on the node."""
        index = self._fixed.place[node_id]
        return self._fixed.nodes[index].memory_mb - self._memory[index]

    def _class(self, need: Need) -> _Class:
        key = (need.runtime, need.constraints, need.pinned_to, need.held)
        found = self._fixed.classes.get(key)
        if found is None:
            found = self._fixed.classes[key] = self._classify(need)
        return found

    def _classify(self, need: Need) -> _Class:
        open_, counts = bytearray(len(self._fixed.nodes)), dict[str, int]()
        refused: list[Verdict] = []
        for index, node in enumerate(self._fixed.nodes):
            why = standing(node, need)
            if why is None:
                open_[index] = 1
                continue
            counts[why] = counts.get(why, 0) + 1
            if len(refused) < KEPT_VERDICTS:
                refused.append(Verdict(node.name, False, why))
        return _Class(open_, tuple(refused), counts)

    def _room(self, index: int, need: Need, own: Mapping[int, int]) -> Room:
        node = self._fixed.nodes[index]
        free_cpu = round(node.cpu_count * need.cpu_overcommit - self._cpu[index], 6)
        return Room(node.memory_mb - self._memory[index], free_cpu, own.get(node.id, 0))

    def _score(self, index: int, own: Mapping[int, int], need: Need) -> str:
        node = self._fixed.nodes[index]
        told = f"{own.get(node.id, 0)} of the app's instances of this type, {self._memory[index]} MB allocated"
        if need.spread_by:
            told += f", {need.spread_by} = {node.labels.get(need.spread_by, '(none)')}"
        return told


class _Walk:
    """One choice: goes through the nodes from the best on, and remembers whom it had to pass over."""

    def __init__(self, pool: Pool, need: Need, own: Mapping[int, int], kind: _Class) -> None:
        self._pool, self._need, self._own, self._kind = pool, need, own, kind
        self.refused: list[Verdict] = []
        self._short: dict[str, tuple[int, float]] = {}  # what is missing → on how many nodes, the most that is free

    def best(self, most: int) -> list[int]:
        """Up to `most` nodes that fit, best first, as indexes."""
        found: list[int] = []
        for index in self._candidates():
            if self._fits(index):
                found.append(index)
                if len(found) == most:
                    break
        return found

    def _candidates(self) -> Iterator[int]:
        order, kind = self._pool._order, self._kind
        walk = order if self._need.rank == "spread" else self._filled_first()
        may = (index for entry in walk if kind.open[index := entry & _NODE_MASK])
        if not self._own or (self._need.anti_affinity == "off" and not self._need.spread_by):
            return may
        if self._need.spread_by:
            return self._by_group(may)
        place = self._pool._fixed.place
        ours = {place[node_id]: count for node_id, count in self._own.items() if count and node_id in place}
        return self._apart(may, ours)

    def _filled_first(self) -> Iterator[int]:
        """Most allocated first, then by name; lazily, because few are looked at."""
        order = self._pool._order
        end = len(order)
        while end:
            start = bisect_left(order, (order[end - 1] >> _NODE_BITS) << _NODE_BITS, 0, end)
            yield from order[start:end]
            end = start

    def _apart(self, may: Iterator[int], ours: Mapping[int, int]) -> Iterator[int]:
        """Nodes without an instance of the app first, the others by how many they have."""
        shared = []
        for index in may:
            if index in ours:
                shared.append(index)
            else:
                yield index
        yield from sorted(shared, key=lambda index: ours[index])

    def _by_group(self, may: Iterator[int]) -> Iterator[int]:
        """By the app's instances under the same value of the label, then on the node itself."""
        fixed, groups = self._pool._fixed, dict[str | None, int]()
        values = fixed.values_of(self._need.spread_by)
        ours = {fixed.place[node_id]: count for node_id, count in self._own.items() if node_id in fixed.place}
        for index, count in ours.items():
            groups[values[index]] = groups.get(values[index], 0) + count
        alone = self._need.anti_affinity == "off"
        ranked: dict[tuple[int, int], list[int]] = {}
        for index in may:
            rank = (groups.get(values[index], 0), 0 if alone else ours.get(index, 0))
            ranked.setdefault(rank, []).append(index)
        return (index for rank in sorted(ranked) for index in ranked[rank])

    def _fits(self, index: int) -> bool:
        need, pool, node = self._need, self._pool, self._pool._fixed.nodes[index]
        free_memory = node.memory_mb - pool._memory[index]
        free_cpu = node.cpu_count * need.cpu_overcommit - pool._cpu[index] + 1e-9
        close = need.anti_affinity == "required" and self._own.get(node.id, 0)
        if free_memory >= need.memory_mb and free_cpu >= need.cpu and not close:
            return True
        self._pass_over(node.name, int(close), free_memory, free_cpu)
        return False

    def _pass_over(self, name: str, close: int, free_memory: int, free_cpu: float) -> None:
        need = self._need
        lacks, free = (
            ("close", 0.0) if close else ("memory", free_memory) if free_memory < need.memory_mb else ("cpu", free_cpu)
        )
        count, most = self._short.get(lacks, (0, 0.0))
        self._short[lacks] = (count + 1, max(most, free))
        if len(self.refused) < KEPT_VERDICTS:
            why = too_close(need, close) or too_little(need, free_memory, free_cpu)
            self.refused.append(Verdict(name, False, why or ""))

    def shortages(self) -> dict[str, int]:
        """What was missing, in words, and on how many nodes."""
        need, told = self._need, dict[str, int]()
        for lacks, (count, most) in self._short.items():
            texts = {
                "close": "the node has one of the app's instances of this type, and anti_affinity is required",
                "memory": f"{need.memory_mb} MB of memory are needed, at most {max(most, 0):g} are free",
                "cpu": f"a CPU weight of {need.cpu:g} is needed, at most {max(round(most, 2), 0):g} is free",
            }
            told[texts[lacks]] = count
        return told


def _nothing_fits(counts: Mapping[str, int], nodes: int) -> str:
    if not nodes:
        return "no node is known yet"
    parts = [f"{why} ({count} of {nodes} nodes)" for why, count in sorted(counts.items(), key=lambda c: (-c[1], c[0]))]
    return ("no node fits: " + "; ".join(parts))[:300]

"""Whether a history of one compare-and-set register can be put in an order that explains it (Wing and Gong, Lowe).

Owns the search. The register holds a text; an operation writes it, changes it if it is what was expected, or reads it.
An operation whose end is unknown may have happened at any time after its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_LIMIT = 2_000_000  # states looked at; a history that needs more is cut smaller by its caller


class TooHard(Exception):
    """The search was given up: neither yes nor no."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation. `expects` None: an unconditional write. `reads`: it changes nothing and saw `value`."""

    name: str
    start: float
    end: float
    value: str
    expects: str | None = None
    reads: bool = False

    def apply(self, state: str) -> str | None:
        """The state after it; None when it cannot happen in this one."""
        if self.reads:
            return state if state == self.value else None
        if self.expects is not None and self.expects != state:
            return None
        return self.value


def explain(steps: Sequence[Step], initial: str) -> list[str] | None:
    """The names in an order that explains every answer, or None when there is no such order. Raises TooHard."""
    ordered = sorted(steps, key=lambda step: step.start)
    everything = (1 << len(ordered)) - 1
    seen: set[tuple[int, str]] = set()
    # depth first; each entry: what is done, the state, the order so far as a linked list
    stack: list[tuple[int, str, tuple[str, object] | None]] = [(0, initial, None)]
    while stack:
        done, state, path = stack.pop()
        if done == everything:
            return _unrolled(path)
        for number in _possible(ordered, done):
            after = ordered[number].apply(state)
            key = (done | 1 << number, after or "")
            if after is None or key in seen:
                continue
            seen.add(key)
            if len(seen) > _LIMIT:
                raise TooHard(f"{len(ordered)} operations")
            stack.append((key[0], after, (ordered[number].name, path)))
    return None


def _possible(ordered: list[Step], done: int) -> list[int]:
    """What may come next: everything that began before all that is left had ended."""
    found: list[int] = []
    first_end = float("inf")
    for number, step in enumerate(ordered):
        if done >> number & 1:
            continue
        if step.start > first_end:
            break
        first_end = min(first_end, step.end)
        found.append(number)
    return [number for number in found if ordered[number].start <= first_end]


def _unrolled(path: tuple[str, object] | None) -> list[str]:
    names: list[str] = []
    while path is not None:
        names.append(path[0])
        path = path[1]  # type: ignore[assignment]
    return names[::-1]

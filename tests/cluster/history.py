"""What clients did and were told: operations, each with all its tries, on one monotonic clock.

Owns the vocabulary of a history and its file (JSON lines). An operation is one intention; repeats under its
Idempotency-Key are tries of the same operation. Whatever is not a clear yes or no is unknown, and stays so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["applied", "refused", "unknown"]
# 4xx that say nothing about what an earlier try of the same key did or does
_UNDECIDED = frozenset({408, 409, 425, 429})


@dataclass(slots=True)
class Try:
    """One request and its answer. `status` 0: the connection broke, or nothing came in time."""

    rid: str  # its Request-Id, which the events carry
    node: str  # the member that was asked
    start: float
    end: float
    status: int = 0
    outcome: str = ""  # Omni-Outcome
    code: str = ""  # the problem's
    index: int = 0  # Omni-Index
    replayed: bool = False
    answered_by: str = ""  # Omni-Node
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        if 200 <= self.status < 300:
            return "applied"
        if self.status == 409 and self.code in ("in_flight", "idempotency_in_flight"):
            return "unknown"
        if 400 <= self.status < 500 and (self.status not in _UNDECIDED or self.outcome == "not-applied"):
            return "refused"
        if self.status in (503, 507) and self.outcome == "not-applied":
            return "refused"
        return "unknown"


@dataclass(slots=True)
class Op:
    """`kind`: create, describe, scale, delete (writes) or read. `value` is what it writes, or what it read."""

    id: str
    kind: str
    app: str
    client: int = 0
    key: str = ""  # Idempotency-Key; empty: none
    value: Any = None
    expects: str | None = None  # If-Match: the value that was read at that revision
    if_match: int | None = None
    revision: int | None = None  # of the answer
    min_index: int = 0  # of a read: what it asked to be included
    app_id: int | None = None
    absent: bool = False  # of a read: 404
    tries: list[Try] = field(default_factory=list)

    @property
    def is_write(self) -> bool:
        return self.kind != "read"

    @property
    def verdict(self) -> Verdict:
        """Applied if any try said so; refused only if every one did."""
        verdicts = {one.verdict for one in self.tries}
        if "applied" in verdicts:
            return "applied"
        return "refused" if verdicts == {"refused"} else "unknown"

    @property
    def start(self) -> float:
        return min(one.start for one in self.tries)

    @property
    def end(self) -> float:
        """When the client knew: the end of the first try that was answered so; for ever when none was."""
        known = [one.end for one in self.tries if one.verdict == self.verdict != "unknown"]
        return min(known) if known else float("inf")

    @property
    def index(self) -> int:
        """The write index of the acknowledged write, or what a read says to reflect; 0 when unknown."""
        return next((one.index for one in self.tries if one.verdict == "applied"), 0)

    @property
    def rids(self) -> set[str]:
        return {one.rid for one in self.tries}


def save(ops: Iterable[Op], path: Path) -> None:
    """One operation a line."""
    with path.open("w", encoding="utf-8") as file:
        for op in ops:
            file.write(json.dumps(asdict(op)) + "\n")


def load(path: Path) -> Iterator[Op]:
    for line in path.read_text(encoding="utf-8").splitlines():
        data = json.loads(line)
        yield Op(**{**data, "tries": [Try(**one) for one in data["tries"]]})

"""Everything the agent knows of one instance, as one immutable value that goes to disk whole.

Owns the shape and how a change becomes a new value with a new report number. What changes when is
`agent.lifecycle`'s; where it is kept is `agent.store`'s.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from agent import states
from agent.protocol import Assignment, Observed

Leaving = Literal["", "stop", "restart"]


@dataclass(frozen=True, slots=True)
class Record:
    """Times are monotonic and belong to boot `boot_id`.

    `handle` is the runtime's, and stands for "there is a process to look after": it is set before the process may
    run and cleared when its end has been written into `observed`. `early_exits` counts ends before the instance was
    ever healthy, `failures` the crashes in a row that set the back-off, `delays` the tries that the runtime could
    not take. `orphan`: no list of the control plane has it, nobody waits for its log. `past_handle` is the last handle
    whose end was written down; `log_start` how long the two output files were when the process was started.
    """

    node: str
    boot_id: str
    assignment: Assignment
    observed: Observed
    port: int | None = None
    handle: dict[str, Any] | None = None
    started: float | None = None
    healthy_since: float | None = None
    ever_healthy: bool = False
    early_exits: int = 0
    failures: int = 0
    delays: int = 0
    leaving: Leaving = ""
    drain_least: float | None = None  # not before, whoever says what
    drain_until: float | None = None
    kill_at: float | None = None
    next_start: float | None = None
    ended_at: float | None = None
    orphan: bool = False
    past_handle: dict[str, Any] | None = None
    log_start: tuple[int, int] = (0, 0)

    @property
    def id(self) -> int:
        return self.assignment.id

    @property
    def terminal(self) -> bool:
        return self.observed.status in states.TERMINAL


def new(node: str, boot_id: str, assignment: Assignment) -> Record:
    observed = Observed(id=assignment.id, seq=1, status="placed", generation=assignment.generation)
    return Record(node=node, boot_id=boot_id, assignment=assignment, observed=observed)


def observe(record: Record, **changes: Any) -> Record:
    """`record` with these fields of its report changed; the report's number grows when something really differs."""
    after = dataclasses.replace(record.observed, **changes)
    if after == record.observed:
        return record
    states.check(record.observed.status, after.status)
    return dataclasses.replace(record, observed=dataclasses.replace(after, seq=record.observed.seq + 1))

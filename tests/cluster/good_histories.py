"""Histories of a platform that does everything right, made by a model of it: what the checker must accept.

Owns the model: writes in one order under rising epochs, clients that wait, give up, repeat and read. Every choice comes
from the given chooser, so that hypothesis can shrink it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.cluster.checker import Case, scope_of
from tests.cluster.evidence import AppRow, Event, Evidence
from tests.cluster.history import Op, Try

Choose = Callable[[int], int]  # a number below the given one
PRINCIPAL = "token:1"


@dataclass(slots=True)
class Model:
    """`step` lets one client do one thing; `case` is what remains."""

    choose: Choose
    now: float = 0.0
    epoch: int = 1
    index: int = 0
    evidence: Evidence = field(default_factory=Evidence)
    ops: list[Op] = field(default_factory=list)
    known: int = 0  # the highest index that any client knows
    values: dict[str, tuple[int, str, bool]] = field(default_factory=dict)  # app → revision, description, deleted
    ids: dict[str, int] = field(default_factory=dict)

    def step(self) -> None:
        self.now += 1.0
        if self.choose(8) == 0:
            self.epoch += 1
        if not self.values or self.choose(5) == 0:
            self._create()
            return
        app = sorted(self.values)[self.choose(len(self.values))]
        if self.choose(3) == 0:
            self._read(app)
        else:
            self._describe(app)

    def case(self) -> Case:
        self.evidence.epoch, self.evidence.write_index = self.epoch, self.index
        for name, (revision, description, deleted) in self.values.items():
            state = "deleted" if deleted else "running"
            self.evidence.apps[name] = AppRow(self.ids[name], name, description, 1, revision, state)
        return Case.of(self.ops, self.evidence, principal=PRINCIPAL)

    def _create(self) -> None:
        name = f"app-{len(self.values)}"
        op = self._begin("create", name)
        self.values[name] = (1, str(op.value), False)
        self.ids[name] = len(self.ids) + 1
        self._commit(op, "app.created", self.ids[name], {"name": name})
        self._answer(op, 1)

    def _describe(self, app: str) -> None:
        revision, before, deleted = self.values[app]
        op = self._begin("describe", app)
        if self.choose(2):
            stale = self.choose(3) == 0
            op.if_match, op.expects = (revision - 1, "something older") if stale else (revision, before)
            if stale or deleted:
                self._refuse(op)
                return
        self.values[app] = (revision + 1, str(op.value), deleted)
        self._commit(op, "app.updated", self.ids[app], {"description": [before, op.value]})
        self._answer(op, revision + 1)

    def _read(self, app: str) -> None:
        revision, value, _ = self.values[app]
        op = self._begin("read", app)
        op.value, op.revision, op.key = value, revision, ""
        op.min_index = self.known if self.choose(2) else 0
        op.tries[0].status, op.tries[0].index, op.tries[0].end = 200, self.index, self.now + 0.5

    def _begin(self, kind: str, app: str) -> Op:
        number = len(self.ops)
        op = Op(f"o{number}", kind, app, key=f"k{number}", value=f"v{number}")
        op.tries.append(Try(f"o{number}.1", "n1", self.now - 0.25 * self.choose(4), self.now + 0.5))
        self.ops.append(op)
        return op

    def _commit(self, op: Op, kind: str, app_id: int, change: dict[str, object]) -> None:
        self.index += 1
        member = f"m{self.epoch % 3}"
        event = Event(
            self.index, 0, self.epoch, f"c{self.epoch}", member, op.tries[0].rid, kind, app_id, app_id, change
        )
        self.evidence.events.append(event)
        self.evidence.replies[scope_of(PRINCIPAL, op.key)] = self.index

    def _answer(self, op: Op, revision: int) -> None:
        """At once; or the connection breaks, and the client repeats it or gives up."""
        fate = self.choose(4)
        if fate:
            self._acknowledge(op, op.tries[0], revision)
        elif self.choose(2):
            again = Try(f"{op.id}.2", "n2", self.now + 0.6, self.now + 0.9, replayed=True)
            op.tries.append(again)
            self._acknowledge(op, again, revision)

    def _acknowledge(self, op: Op, one: Try, revision: int) -> None:
        one.status, one.outcome, one.index, op.revision = 200, "applied", self.index, revision
        self.known = max(self.known, self.index)

    def _refuse(self, op: Op) -> None:
        op.tries[0].status, op.tries[0].outcome, op.tries[0].code = 412, "not-applied", "stale_revision"

"""The judge: what clients were told against what the platform holds. Pure; every rule returns its violations.

Owns the rules, each a function of one name and one promise. `check` runs them all. A history without a violation proves
nothing unless it reached the rare states: see `coverage`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.cluster import checker_apps
from tests.cluster.evidence import Event, Evidence
from tests.cluster.history import Op
from tests.cluster.violations import Violation

_SHOWN = 5  # violations of one rule that a report shows


@dataclass(frozen=True, slots=True)
class Case:
    """A history and the evidence, with what every rule looks up. `principal`: whose keys they were (kind:id)."""

    ops: list[Op]
    evidence: Evidence
    principal: str = "token:1"
    strict_reads: bool = True  # one database: a read sees everything committed before it began
    by_rid: dict[str, list[Event]] = field(default_factory=dict)

    @classmethod
    def of(cls, ops: list[Op], evidence: Evidence, *, principal: str = "token:1", strict_reads: bool = True) -> Case:
        by_rid: dict[str, list[Event]] = defaultdict(list)
        for event in evidence.events:
            if not event.is_a_consequence:
                by_rid[event.rid].append(event)
        return cls(ops, evidence, principal, strict_reads, dict(by_rid))

    def applied_at(self, op: Op) -> set[int]:
        """The write indexes under which the platform holds the operation: none, one, or (a mistake) several."""
        found = {event.index for rid in op.rids for event in self.by_rid.get(rid, ())}
        kept = self.evidence.replies.get(scope_of(self.principal, op.key)) if op.key else None
        return found | ({kept} if kept is not None else set())


def scope_of(principal: str, key: str) -> str:
    """How the platform names a kept answer."""
    return hashlib.sha256(f"{principal}:{key}".encode()).hexdigest()


def check(case: Case) -> list[Violation]:
    """Every violation of every rule."""
    return [violation for rule in RULES for violation in rule(case)]


def report(violations: list[Violation]) -> str:
    """A few of each rule, for people."""
    by_rule: dict[str, list[Violation]] = defaultdict(list)
    for violation in violations:
        by_rule[violation.rule].append(violation)
    lines = []
    for rule, found in by_rule.items():
        lines.append(f"{rule}: {len(found)}")
        lines += [f"  {one.detail}" for one in found[:_SHOWN]]
    return "\n".join(lines) or "no violation"


def acknowledged_writes_are_there(case: Case) -> Iterator[Violation]:
    for op in _writes(case, "applied"):
        at = case.applied_at(op)
        if op.index not in at:
            held = f"held under {sorted(at)}" if at else "not held at all"
            yield Violation("acknowledged_writes_are_there", f"{_name(op)} was acknowledged as {op.index}, is {held}")


def refused_writes_are_not(case: Case) -> Iterator[Violation]:
    for op in _writes(case, "refused"):
        if at := case.applied_at(op):
            yield Violation("refused_writes_are_not", f"{_name(op)} was refused and is held under {sorted(at)}")


def not_applied_is_true(case: Case) -> Iterator[Violation]:
    """An answer that says not-applied means it, whatever its status."""
    for op in case.ops:
        for one in op.tries:
            if one.outcome == "not-applied" and one.status >= 400 and (found := case.by_rid.get(one.rid)):
                yield Violation(
                    "not_applied_is_true",
                    f"{_name(op)}: {one.rid} was answered {one.status} {one.code} not-applied, and is {found[0].index}",
                )


def keys_apply_once(case: Case) -> Iterator[Violation]:
    for op in case.ops:
        if op.is_write and len(at := case.applied_at(op)) > 1:
            yield Violation("keys_apply_once", f"{_name(op)} was applied as {sorted(at)}")
        told = {one.index for one in op.tries if one.verdict == "applied"}
        if op.is_write and len(told) > 1:
            yield Violation("keys_apply_once", f"{_name(op)} was acknowledged as {sorted(told)}")


def indexes_have_no_gap(case: Case) -> Iterator[Violation]:
    """1 … write_index, each by one writer, its events numbered from 0."""
    evidence = case.evidence
    ordinals: dict[int, list[int]] = defaultdict(list)
    writers: dict[int, set[tuple[int, str, str, str]]] = defaultdict(set)
    for event in evidence.events:
        ordinals[event.index].append(event.ordinal)
        writers[event.index].add((event.epoch, event.claim, event.member, event.rid))
    held = set(ordinals) | set(evidence.replies.values())
    missing = sorted(set(range(1, evidence.write_index + 1)) - held)
    if missing:
        yield Violation("indexes_have_no_gap", f"nothing is held under {missing[:10]} of {evidence.write_index}")
    if beyond := sorted(index for index in held if index > evidence.write_index or index < 1):
        yield Violation("indexes_have_no_gap", f"{beyond[:10]} lie beyond {evidence.write_index}")
    for index, found in ordinals.items():
        if sorted(found) != list(range(len(found))):
            yield Violation("indexes_have_no_gap", f"the events of {index} are {sorted(found)}")
        if len(writers[index]) != 1:
            yield Violation("indexes_have_no_gap", f"{index} was given to several: {sorted(writers[index])}")


def epochs_only_rise(case: Case) -> Iterator[Violation]:
    """No write of an old leader after the new one's first; one claim and one member to an epoch."""
    holders: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for before, after in pairwise(sorted(case.evidence.events, key=lambda event: (event.index, event.ordinal))):
        if after.epoch < before.epoch:
            yield Violation(
                "epochs_only_rise",
                f"{after.index} ({after.kind}) was written by {after.member} under epoch {after.epoch}, after "
                f"{before.index} by {before.member} under {before.epoch}",
            )
    for event in case.evidence.events:
        holders[event.epoch].add((event.claim, event.member))
        if event.epoch > case.evidence.epoch:
            yield Violation("epochs_only_rise", f"{event.index} has epoch {event.epoch} of {case.evidence.epoch}")
    for epoch, found in holders.items():
        if len(found) > 1:
            yield Violation("epochs_only_rise", f"epoch {epoch} had several holders: {sorted(found)}")


def order_is_real_time(case: Case) -> Iterator[Violation]:
    """A write that was acknowledged before another began has the lower index."""
    acked = _writes(case, "applied")
    ends = sorted(acked, key=lambda op: op.end)
    highest, position = 0, 0
    for op in sorted(acked, key=lambda op: op.start):
        while position < len(ends) and ends[position].end < op.start:
            highest = max(highest, ends[position].index)
            position += 1
        if op.index <= highest and op.index:
            yield Violation("order_is_real_time", f"{_name(op)} is {op.index}, yet {highest} was known before it began")


def slots_run_once(case: Case) -> Iterator[Violation]:
    """After settling: one live instance for each app, slot and release."""
    found: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    for row in case.evidence.instances:
        if row.live:
            found[row.app_id, row.slot, row.release_id].append(f"{row.id} ({row.status} on {row.node})")
    for (app, slot, release), rows in found.items():
        if len(rows) > 1:
            yield Violation("slots_run_once", f"slot {slot} of app {app}, release {release}: {', '.join(rows)}")


def processes_are_instances(case: Case) -> Iterator[Violation]:
    """No process without a live row (an orphan), no running row without a process."""
    live = {row.id for row in case.evidence.instances if row.live}
    running = {row.id for row in case.evidence.instances if row.status == "running"}
    for instance, pids in case.evidence.processes.items():
        if instance not in live:
            yield Violation("processes_are_instances", f"instance {instance} is no live one, but {pids} run")
    for instance in sorted(running - set(case.evidence.processes)):
        yield Violation("processes_are_instances", f"instance {instance} is said to run and has no process")


def _app_rule(rule: Callable[[checker_apps.AppCase], Iterator[Violation]]) -> Callable[[Case], Iterator[Violation]]:
    """A rule about one app, run over all of them."""

    def over_all(case: Case) -> Iterator[Violation]:
        for app in checker_apps.apps_of(case.ops, case.evidence, case.applied_at, strict_reads=case.strict_reads):
            yield from rule(app)

    over_all.__name__ = rule.__name__
    return over_all


def _writes(case: Case, verdict: str) -> list[Op]:
    return [op for op in case.ops if op.is_write and op.verdict == verdict]


def _name(op: Op) -> str:
    return f"{op.id} ({op.kind} {op.app})"


RULES: tuple[Callable[[Case], Iterator[Violation]], ...] = (
    acknowledged_writes_are_there,
    refused_writes_are_not,
    not_applied_is_true,
    keys_apply_once,
    indexes_have_no_gap,
    epochs_only_rise,
    order_is_real_time,
    slots_run_once,
    processes_are_instances,
    *map(_app_rule, checker_apps.RULES),
)

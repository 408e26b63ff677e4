"""The rules about one app: its revisions, its values, its life. Pure.

The events say in which order descriptions followed each other (each names the one before); the answers say at which
revision. Both must tell one story, and every read must have a place in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from tests.cluster.evidence import AppRow, Event, Evidence
from tests.cluster.history import Op
from tests.cluster.linearizable import Step, TooHard, explain
from tests.cluster.violations import Violation

_LONGEST = 400  # operations of one app that are searched for an order


@dataclass(frozen=True, slots=True)
class Written:
    """A description as the events have it."""

    index: int
    value: str
    before: str | None


@dataclass(slots=True)
class AppCase:
    """One app: what clients did to it, what the platform holds of it. `chain`: its descriptions, oldest first."""

    name: str
    ops: list[Op]
    events: list[Event]
    row: AppRow | None
    applied_at: Callable[[Op], set[int]]
    strict_reads: bool
    chain: list[Written] = field(default_factory=list)

    @property
    def created(self) -> Op | None:
        return next((op for op in self.ops if op.kind == "create"), None)

    @property
    def deleted_at(self) -> int | None:
        """The index from which on it was to be deleted."""
        found = [e.index for e in self.events if "deleted" in (e.change.get("desired_state") or ())]
        return min(found) if found else None

    def reads(self) -> list[Op]:
        return [op for op in self.ops if op.kind == "read" and op.verdict == "applied" and op.value is not None]


def apps_of(
    ops: list[Op], evidence: Evidence, applied_at: Callable[[Op], set[int]], *, strict_reads: bool
) -> Iterator[AppCase]:
    """Every app that a client named, with its own operations and events."""
    by_name: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        by_name[op.app].append(op)
    ids = {str(event.change.get("name")): event.object_id for event in evidence.events if event.kind == "app.created"}
    by_app: dict[int, list[Event]] = defaultdict(list)
    for event in evidence.events:
        if event.app_id is not None:
            by_app[event.app_id].append(event)
    for name, found in by_name.items():
        events = by_app.get(ids.get(name, -1), [])
        case = AppCase(name, found, events, evidence.apps.get(name), applied_at, strict_reads)
        case.chain = _chain(case)
        yield case


def _chain(case: AppCase) -> list[Written]:
    created = case.created
    chain: list[Written] = []
    for event in case.events:
        if event.kind == "app.created" and created is not None:
            chain.append(Written(event.index, str(created.value), None))
        elif event.kind == "app.updated" and "description" in event.change:
            before, after = event.change["description"]
            chain.append(Written(event.index, after, before))
    return chain


def descriptions_follow_each_other(case: AppCase) -> Iterator[Violation]:
    """Each change was made to what the one before left: nothing was lost in between, and the last one stands."""
    for before, after in pairwise(case.chain):
        if after.before != before.value:
            yield _wrong(
                "descriptions_follow_each_other",
                case,
                f"{after.index} replaced {after.before!r}, but {before.index} had left {before.value!r}",
            )
    if case.row is not None and case.chain and case.row.description != case.chain[-1].value:
        last = case.chain[-1]
        yield _wrong(
            "descriptions_follow_each_other",
            case,
            f"{last.index} left {last.value!r}, held is {case.row.description!r}",
        )


def acknowledged_values_are_the_written(case: AppCase) -> Iterator[Violation]:
    """What the answer said was written under an index is what the event of that index says."""
    written = {one.index: one.value for one in case.chain}
    for op in case.ops:
        if op.kind == "describe" and op.verdict == "applied" and written.get(op.index) != op.value:
            yield _wrong(
                "acknowledged_values_are_the_written",
                case,
                f"{op.id} wrote {op.value!r} as {op.index}, the event says {written.get(op.index)!r}",
            )


def revisions_rise_with_the_index(case: AppCase) -> Iterator[Violation]:
    """No revision is given twice; a later write has a higher one."""
    acked = sorted(
        (op for op in case.ops if op.kind in ("create", "describe") and op.verdict == "applied" and op.revision),
        key=lambda op: op.index,
    )
    for before, after in pairwise(acked):
        if (after.revision or 0) <= (before.revision or 0):
            yield _wrong(
                "revisions_rise_with_the_index",
                case,
                f"{after.id} is {after.index} at revision {after.revision}, {before.id} is {before.index} at "
                f"{before.revision}",
            )
    if case.row is not None and acked and case.row.revision < (acked[-1].revision or 0):
        detail = f"{acked[-1].id} got revision {acked[-1].revision}, held is {case.row.revision}"
        yield _wrong("revisions_rise_with_the_index", case, detail)


def conditions_were_met(case: AppCase) -> Iterator[Violation]:
    """A write with If-Match replaced exactly what its client had read."""
    written = {one.index: one.before for one in case.chain}
    for op in case.ops:
        if op.kind != "describe" or op.expects is None:
            continue
        for index in case.applied_at(op):
            if index in written and written[index] != op.expects:
                yield _wrong(
                    "conditions_were_met",
                    case,
                    f"{op.id} expected {op.expects!r} (revision {op.if_match}) and replaced {written[index]!r}",
                )


def reads_have_a_place(case: AppCase) -> Iterator[Violation]:
    """Each read shows a value that was written, not before it was begun, and not older than the read says it is."""
    position = {one.value: number for number, one in enumerate(case.chain)}
    begun = {op.value: op.start for op in case.ops if op.is_write and op.kind in ("create", "describe")}
    for op in case.reads():
        number = position.get(op.value)
        if number is None:
            yield _wrong("reads_have_a_place", case, f"{op.id} read {op.value!r}, which nobody wrote for good")
            continue
        if begun.get(op.value, 0.0) > op.end:
            yield _wrong("reads_have_a_place", case, f"{op.id} read {op.value!r} before it was begun")
        floor = max(op.index, op.min_index)
        newer = case.chain[number + 1].index if number + 1 < len(case.chain) else None
        if newer is not None and newer <= floor:
            yield _wrong(
                "reads_have_a_place",
                case,
                f"{op.id} says it includes {floor} and shows {op.value!r}, which {newer} had replaced",
            )


def reads_agree_with_revisions(case: AppCase) -> Iterator[Violation]:
    """At the revision of an acknowledged write stands what that write wrote; reads at one revision agree."""
    shown: dict[int, tuple[str, str]] = {}
    for op in case.ops:
        told = op.kind in ("create", "describe") and op.verdict == "applied" and op.revision
        if told and op.revision is not None:
            shown.setdefault(op.revision, (op.value, op.id))
    for op in case.reads():
        if op.revision is None:
            continue
        value, who = shown.setdefault(op.revision, (op.value, op.id))
        if value != op.value:
            yield _wrong(
                "reads_agree_with_revisions",
                case,
                f"at revision {op.revision} {op.id} read {op.value!r}, {who} has {value!r}",
            )


def values_are_linearizable(case: AppCase) -> Iterator[Violation]:
    """There is an order of writes, conditional writes and reads that explains all answers."""
    created = case.created
    if created is None:
        return
    steps = [step for op in case.ops if (step := _step(case, op)) is not None]
    steps = _beginning(sorted(steps, key=lambda step: step.start))
    try:
        if explain(steps, "") is None:
            yield _wrong("values_are_linearizable", case, f"no order explains its {len(steps)} operations")
    except TooHard:
        return


def _beginning(steps: list[Step]) -> list[Step]:
    """As many as can be searched; without the reads that may have seen a write which is left out."""
    if len(steps) <= _LONGEST:
        return steps
    cut = steps[_LONGEST].start
    return [step for step in steps[:_LONGEST] if not step.reads or step.end < cut]


def _step(case: AppCase, op: Op) -> Step | None:
    """The operation as the register sees it; None for what tells nothing about its value."""
    if op.kind in ("create", "describe") and case.applied_at(op):
        end = op.end if op.verdict == "applied" else float("inf")
        expects = "" if op.kind == "create" else op.expects
        return Step(op.id, op.start, end, str(op.value), expects)
    if op.kind == "read" and case.strict_reads and op.min_index and op.verdict == "applied" and op.value is not None:
        return Step(op.id, op.start, op.end, str(op.value), reads=True)
    return None


def apps_live_and_die(case: AppCase) -> Iterator[Violation]:
    """A created app is there until its deletion; nothing is done to a deleted one; it does not come back."""
    created = case.created
    gone = case.deleted_at
    if created and created.verdict == "applied" and gone is None and case.row is None:
        yield _wrong("apps_live_and_die", case, "it was created and never deleted, and is not there")
    if gone is None:
        return
    if case.row is not None and case.row.desired_state != "deleted":
        yield _wrong("apps_live_and_die", case, f"{gone} deleted it, and it is to be {case.row.desired_state}")
    late = [event for event in case.events if event.index > gone and event.kind in ("app.updated", "app.created")]
    for event in late:
        yield _wrong("apps_live_and_die", case, f"{gone} deleted it, {event.index} is {event.kind}")
    for op in case.ops:
        if op.kind == "delete" and op.verdict == "applied" and op.index < gone:
            yield _wrong("apps_live_and_die", case, f"{op.id} deleted it as {op.index}, the event is {gone}")


def absence_has_a_reason(case: AppCase) -> Iterator[Violation]:
    """Who asked for at least the app's creation is not told that there is no such app, but by a deletion."""
    created = case.created
    if created is None or not created.index:
        return
    first = min((op.start for op in case.ops if op.kind == "delete"), default=float("inf"))
    for op in case.ops:
        if op.kind == "read" and op.absent and op.min_index >= created.index and op.end < first:
            yield _wrong("absence_has_a_reason", case, f"{op.id} found nothing, {created.id} is {created.index}")


def counts_follow_each_other(case: AppCase) -> Iterator[Violation]:
    """Each change of `instances` was made to what the one before left, and the last one stands."""
    last: int | None = None
    for event in case.events:
        change = event.change.get("instances") if event.kind == "app.updated" else None
        if not change:
            continue
        if last is not None and change[0] != last:
            detail = f"{event.index} replaced {change[0]} instances, but {last} had been left"
            yield _wrong("counts_follow_each_other", case, detail)
        last = change[1]
    if case.row is not None and last is not None and case.row.instances != last:
        yield _wrong("counts_follow_each_other", case, f"{last} instances were left, held are {case.row.instances}")


def _wrong(rule: str, case: AppCase, detail: str) -> Violation:
    return Violation(rule, f"{case.name}: {detail}")


RULES: tuple[Callable[[AppCase], Iterator[Violation]], ...] = (
    descriptions_follow_each_other,
    acknowledged_values_are_the_written,
    revisions_rise_with_the_index,
    conditions_were_met,
    reads_have_a_place,
    reads_agree_with_revisions,
    values_are_linearizable,
    apps_live_and_die,
    absence_has_a_reason,
    counts_follow_each_other,
)

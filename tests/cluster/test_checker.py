"""The checker accepts every history of a right platform; each planted lie turns on the rule that is there for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster import checker_apps, history
from tests.cluster.checker import RULES, Case, check, report
from tests.cluster.evidence import AppRow, Event, InstanceRow
from tests.cluster.good_histories import Model
from tests.cluster.history import Op, Try


def _history(choices: list[int], steps: int = 40) -> Case:
    numbers = iter(choices)
    model = Model(lambda below: next(numbers, 1) % below)
    for _ in range(steps):
        model.step()
    return model.case()


CHOICES = st.lists(st.integers(0, 1 << 16), min_size=20, max_size=300)


@pytest.mark.slow
@given(CHOICES)
def test_a_right_platform_is_accepted(choices: list[int]) -> None:
    violations = check(_history(choices))
    assert violations == [], report(violations)


def _case() -> Case:
    """A fixed one with everything in it: repeats, refusals, several epochs, several apps."""
    case = _history([number * 7919 % 104729 for number in range(400)], steps=60)
    assert check(case) == []
    return case


def _acked(case: Case, kind: str = "describe") -> Op:
    """An acknowledged write, with another change of the same app after it."""
    found = [op for op in case.ops if op.verdict == "applied" and op.is_write]
    return next(
        op for op in found if op.kind == kind and any(other.app == op.app and other.index > op.index for other in found)
    )


def _again(case: Case) -> Case:
    return Case.of(case.ops, case.evidence, principal=case.principal, strict_reads=case.strict_reads)


def _replace_event(case: Case, index: int, **fields: object) -> None:
    events = case.evidence.events
    number = next(i for i, event in enumerate(events) if event.index == index)
    events[number] = replace(events[number], **fields)  # type: ignore[arg-type]


def lose_an_acknowledged_write(case: Case) -> None:
    index = _acked(case).index
    case.evidence.events[:] = [event for event in case.evidence.events if event.index != index]
    case.evidence.replies = {scope: at for scope, at in case.evidence.replies.items() if at != index}


def apply_a_refused_write(case: Case) -> None:
    op = _acked(case)
    op.tries = [replace(one, status=503, outcome="not-applied", index=0) for one in op.tries]


def say_not_applied_of_a_500(case: Case) -> None:
    op = _acked(case)
    op.tries[0] = replace(op.tries[0], status=500, outcome="not-applied")


def apply_a_key_twice(case: Case) -> None:
    op = _acked(case)
    _replace_event(case, max(event.index for event in case.evidence.events), rid=op.tries[0].rid)


def leave_a_gap(case: Case) -> None:
    case.evidence.write_index += 1


def give_an_index_twice(case: Case) -> None:
    first = case.evidence.events[3]
    case.evidence.events.append(replace(first, ordinal=1, rid="another"))


def let_a_deposed_leader_write(case: Case) -> None:
    last = max(case.evidence.events, key=lambda event: event.index)
    _replace_event(case, last.index, epoch=1, claim="c1", member="m1")


def give_an_epoch_to_two(case: Case) -> None:
    _replace_event(case, _acked(case).index, member="somebody")


def acknowledge_out_of_order(case: Case) -> None:
    op = _acked(case)
    for one in op.tries:
        one.start, one.end = one.start + 1000, one.end + 1000


def overwrite_unseen(case: Case) -> None:
    index = _acked(case).index
    value = next(event for event in case.evidence.events if event.index == index).change["description"][1]
    _replace_event(case, index, change={"description": ["never there", value]})


def hold_an_older_value(case: Case) -> None:
    name = _acked(case).app
    case.evidence.apps[name] = replace(case.evidence.apps[name], description="v0")


def write_something_else(case: Case) -> None:
    _acked(case).value = "what nobody holds"


def give_a_revision_twice(case: Case) -> None:
    op = _acked(case)
    later = next(o for o in case.ops if o.app == op.app and o.index > op.index and o.kind == "describe" and o.revision)
    later.revision = op.revision


def ignore_if_match(case: Case) -> None:
    op = next(op for op in case.ops if op.expects is not None and op.verdict == "applied")
    op.expects = "what it had read"


def read_what_was_never_written(case: Case) -> None:
    next(op for op in case.ops if op.kind == "read").value = "from nowhere"


def read_older_than_it_says(case: Case) -> None:
    op = next(op for op in case.ops if op.kind == "read" and len(_values(case, op.app)) > 1 and op.revision > 1)  # type: ignore[operator]
    op.value, op.revision = _values(case, op.app)[0], None


def _values(case: Case, app: str) -> list[str]:
    return [str(op.value) for op in case.ops if op.app == app and op.is_write and op.verdict == "applied"]


def read_two_values_at_one_revision(case: Case) -> None:
    op = next(op for op in case.ops if op.kind == "read" and op.revision and op.revision > 1)
    op.revision -= 1  # type: ignore[operator]


def swap_two_reads(case: Case) -> None:
    """Each of them alone has a place; together with the writes there is no order."""
    op = next(op for op in case.ops if op.kind == "read" and len(_values(case, op.app)) > 2 and op.revision > 2)  # type: ignore[operator]
    op.value, op.revision, op.min_index = _values(case, op.app)[0], None, 1
    op.tries[0].index = 0


def lose_an_app(case: Case) -> None:
    del case.evidence.apps[_acked(case, "create").app]


def bring_an_app_back(case: Case) -> None:
    index = _acked(case).index
    _replace_event(case, index, kind="app.desired_state_changed", change={"desired_state": ["running", "deleted"]})


def run_a_slot_twice(case: Case) -> None:
    case.evidence.instances += [InstanceRow(n, 1, 0, 1, f"n{n}", "running", True) for n in (1, 2)]
    case.evidence.processes.update({1: [11], 2: [12]})


def leave_an_orphan(case: Case) -> None:
    case.evidence.processes[7] = [17]


def run_without_a_process(case: Case) -> None:
    case.evidence.instances.append(InstanceRow(1, 1, 0, 1, "n1", "running", True))


def hide_an_app(case: Case) -> None:
    op = _acked(case, "create")
    tries = [Try("x.1", "n1", 2000.0, 2001.0, 404)]
    case.ops.append(Op("x", "read", op.app, absent=True, min_index=op.index, tries=tries))


def lose_a_count(case: Case) -> None:
    name = _acked(case).app
    app = case.evidence.apps[name]
    at = case.evidence.write_index + 1
    case.evidence.write_index = at
    change = {"instances": [1, 3]}
    epoch = case.evidence.epoch
    last = max(case.evidence.events, key=lambda event: event.index)
    case.evidence.events.append(
        Event(at, 0, epoch, f"c{epoch}", f"m{epoch % 3}", "s.1", "app.updated", app.id, app.id, change)
    )
    assert last.index < at
    case.evidence.apps[name] = replace(app, instances=1)


LIES: dict[Callable[[Case], None], str] = {
    lose_an_acknowledged_write: "acknowledged_writes_are_there",
    apply_a_refused_write: "refused_writes_are_not",
    say_not_applied_of_a_500: "not_applied_is_true",
    apply_a_key_twice: "keys_apply_once",
    leave_a_gap: "indexes_have_no_gap",
    give_an_index_twice: "indexes_have_no_gap",
    let_a_deposed_leader_write: "epochs_only_rise",
    give_an_epoch_to_two: "epochs_only_rise",
    acknowledge_out_of_order: "order_is_real_time",
    overwrite_unseen: "descriptions_follow_each_other",
    hold_an_older_value: "descriptions_follow_each_other",
    write_something_else: "acknowledged_values_are_the_written",
    give_a_revision_twice: "revisions_rise_with_the_index",
    ignore_if_match: "conditions_were_met",
    read_what_was_never_written: "reads_have_a_place",
    read_older_than_it_says: "reads_have_a_place",
    read_two_values_at_one_revision: "reads_agree_with_revisions",
    swap_two_reads: "values_are_linearizable",
    lose_an_app: "apps_live_and_die",
    bring_an_app_back: "apps_live_and_die",
    run_a_slot_twice: "slots_run_once",
    leave_an_orphan: "processes_are_instances",
    run_without_a_process: "processes_are_instances",
    hide_an_app: "absence_has_a_reason",
    lose_a_count: "counts_follow_each_other",
}


@pytest.mark.parametrize(("lie", "rule"), LIES.items(), ids=[lie.__name__ for lie in LIES])
def test_a_lie_is_found_by_its_rule(lie: Callable[[Case], None], rule: str) -> None:
    case = copy.deepcopy(_case())
    lie(case)
    found = {violation.rule for violation in check(_again(case))}
    assert rule in found


def test_every_rule_has_a_lie() -> None:
    assert {rule.__name__ for rule in RULES} == set(LIES.values())


@given(CHOICES, st.integers(0, 1 << 16))
def test_any_lost_acknowledged_write_is_found(choices: list[int], which: int) -> None:
    case = _history(choices)
    acked = [op for op in case.ops if op.is_write and op.verdict == "applied"]
    if not acked:
        return
    index = acked[which % len(acked)].index
    case.evidence.events[:] = [event for event in case.evidence.events if event.index != index]
    case.evidence.replies = {scope: at for scope, at in case.evidence.replies.items() if at != index}
    assert "acknowledged_writes_are_there" in {violation.rule for violation in check(_again(case))}


@given(CHOICES, st.integers(0, 1 << 16))
def test_any_write_under_an_old_epoch_is_found(choices: list[int], which: int) -> None:
    case = _history(choices)
    late = [event for event in case.evidence.events[1:] if event.epoch > case.evidence.events[0].epoch]
    if not late:
        return
    victim = late[which % len(late)]
    _replace_event(case, victim.index, epoch=case.evidence.events[0].epoch)
    rules = {violation.rule for violation in check(_again(case))}
    assert "epochs_only_rise" in rules


@given(CHOICES, st.integers(1, 30))
def test_a_long_history_may_be_cut_anywhere(choices: list[int], longest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checker_apps, "_LONGEST", longest)
        assert check(_history(choices)) == []


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    case = _case()
    history.save(case.ops, tmp_path / "h")
    assert list(history.load(tmp_path / "h")) == case.ops


@pytest.mark.parametrize(
    ("tries", "verdict"),
    [
        ([(503, "not-applied")], "refused"),
        ([(0, "")], "unknown"),
        ([(500, "not-applied")], "unknown"),
        ([(504, "unknown")], "unknown"),
        ([(0, ""), (412, "not-applied")], "unknown"),
        ([(0, ""), (201, "applied")], "applied"),
        ([(503, "not-applied"), (409, "not-applied")], "refused"),
        ([(503, "not-applied"), (429, "")], "unknown"),
    ],
)
def test_unknown_is_never_taken_for_no(tries: list[tuple[int, str]], verdict: str) -> None:
    op = Op("o", "create", "a", tries=[Try(f"o.{n}", "n1", n, n + 0.5, *one) for n, one in enumerate(tries)])
    assert op.verdict == verdict


def test_an_app_row_is_compared_as_it_is_held() -> None:
    case = copy.deepcopy(_case())
    name = next(iter(case.evidence.apps))
    case.evidence.apps[name] = AppRow(**{**_fields(case.evidence.apps[name]), "revision": 0})
    assert "revisions_rise_with_the_index" in {violation.rule for violation in check(_again(case))}


def _fields(row: AppRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in AppRow.__dataclass_fields__}

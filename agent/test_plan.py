"""Rules of the decision and of what events make of a record, tried on whole random lives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import lifecycle, record
from agent.health import HealthState
from agent.plan import LOG_PATIENCE_S, Process, Situation, decide
from agent.protocol import Assignment, Exit, Probe, ReleaseRef
from agent.record import Record

AT = "2026-11-22T15:00:00.000Z"
RELEASE = ReleaseRef(1, "1", "0" * 64, 1)


def wanted(**changes: Any) -> Assignment:
    values: dict[str, Any] = {"app_id": 1, "app": "a", "org": "o", "slot": 0, "desired": "run", "command": "x"}
    return Assignment(id=1, release=RELEASE, **{**values, **changes})


@dataclass
class Life:
    """An instance with an imaginary process; performs what `decide` says and remembers it."""

    record: Record
    process: Process = "none"
    now: float = 1000.0
    log_done: bool = False
    deleted: bool = False
    term_at: float | None = None
    ignores_term: bool = False
    unavailable: bool = False

    def settle(self) -> list[str]:
        done: list[str] = []
        while not self.deleted:
            action = decide(Situation(self.record, self.process, self.log_done, self.now))
            if action.kind == "wait":
                assert action.until is None or action.until > self.now
                return done
            done.append(action.kind)
            assert len(done) < 12, done
            getattr(self, f"do_{action.kind}")()
        return done

    def do_start(self) -> None:
        assert self.process == "none"
        assert self.record.assignment.desired == "run"
        if self.unavailable:
            self.record = lifecycle.delayed(self.record, "no package", self.now, 0.5)
            return
        self.record = lifecycle.starting(self.record, 2000, "127.0.0.1:2000")
        self.record = lifecycle.started(self.record, {"pid": 1}, self.now, AT)
        self.process = "running"

    def do_drain(self) -> None:
        self.drain_from = self.now
        self.was_routed = self.record.observed.status == "running"
        self.record = lifecycle.drained_from(self.record, self.now)

    def do_terminate(self) -> None:
        if self.was_routed:
            assert self.now >= self.drain_from + self.record.assignment.drain_s
        self.term_at = self.now
        self.record = lifecycle.terminated(self.record, self.now)
        if not self.ignores_term:
            self.process = "ended"

    def do_kill(self) -> None:
        assert self.term_at is not None
        assert self.now >= self.term_at + self.record.assignment.stop_timeout_s
        self.process = "ended"

    def do_record_end(self) -> None:
        self.record = lifecycle.ended(self.record, Exit(AT, code=1), self.now, 0.5)
        self.process = "none"

    def do_finish(self) -> None:
        self.record = lifecycle.stopped(self.record)

    def do_delete(self) -> None:
        assert self.process == "none"
        assert self.record.terminal
        assert self.log_done or self.record.orphan or self.now >= (self.record.ended_at or 0) + LOG_PATIENCE_S
        self.deleted = True

    def probe(self, ok: bool) -> None:
        if self.process == "running":
            state = HealthState("healthy", True) if ok else HealthState("unhealthy", True)
            self.record = lifecycle.probed(self.record, state, Probe(AT, ok, "x"), self.now)

    def assign(self, **changes: Any) -> None:
        self.record = lifecycle.assigned(self.record, replace(self.record.assignment, **changes))


def fresh(**changes: Any) -> Life:
    return Life(record.new("n", "boot", wanted(**changes)))


EVENTS = st.one_of(
    st.tuples(st.just("time"), st.floats(0.1, 400)),
    st.tuples(st.just("exit"), st.none()),
    st.tuples(st.just("probe"), st.booleans()),
    st.tuples(st.just("generation"), st.none()),
    st.tuples(st.just("desired"), st.sampled_from(["run", "stop", "remove"])),
    st.tuples(st.just("orphan"), st.none()),
    st.tuples(st.just("stubborn"), st.booleans()),
    st.tuples(st.just("unavailable"), st.booleans()),
    st.tuples(st.just("interrupted"), st.none()),
)


def happen(life: Life, event: str, value: Any) -> None:
    if event == "time":
        life.now += value
    elif event == "exit" and life.process == "running":
        life.process = "ended"
    elif event == "probe":
        life.probe(value)
    elif event == "generation":
        life.assign(generation=life.record.assignment.generation + 1)
    elif event == "desired":
        life.assign(desired=value)
    elif event == "orphan":
        life.record = lifecycle.orphaned(life.record)
    elif event == "unavailable":
        life.unavailable = value
    elif event == "interrupted" and life.process == "running":
        life.record = lifecycle.interrupted(life.record)
        life.process = "ended"
    elif event == "stubborn":
        life.ignores_term = value


@pytest.mark.slow
@settings(max_examples=400)
@given(st.lists(EVENTS, max_size=40), st.sampled_from(["always", "on_failure", "never"]))
def test_every_life_obeys_the_table_and_comes_to_its_end(events: list[tuple[str, Any]], policy: str):
    life = fresh(restart_policy=policy)
    life.settle()
    for event, value in events:
        before = life.record
        happen(life, event, value)
        life.settle()
        assert life.record.observed.seq >= before.observed.seq
        if before.terminal:
            assert life.record.observed.status == before.observed.status
        if life.process == "none":
            assert life.record.handle is None
    life.assign(desired="remove")
    life.log_done = True
    for _ in range(4):
        life.settle()
        life.now += 100
    assert life.deleted


@pytest.mark.slow
@given(st.lists(EVENTS, max_size=30))
def test_an_agent_that_dies_between_any_two_steps_goes_on_from_the_record(events: list[tuple[str, Any]]):
    """The record alone decides: reading it back from JSON changes nothing."""
    from agent.plain import from_json, to_json

    life = fresh()
    for event, value in events:
        happen(life, event, value)
        life.settle()
        assert from_json(Record, to_json(life.record)) == life.record


def test_three_ends_before_the_first_healthy_moment_are_a_failure():
    life = fresh()
    life.settle()
    for _ in range(3):
        assert life.record.observed.status == "starting"
        life.process = "ended"
        life.settle()
        life.now += 301
        life.settle()
    assert life.record.observed.status == "failed"
    assert "3 times" in life.record.observed.detail


def test_an_instance_that_was_healthy_once_is_never_given_up():
    life = fresh()
    life.settle()
    life.probe(True)
    for _ in range(20):
        life.process = "ended"
        life.settle()
        assert life.record.observed.status == "crashed"
        life.now += 301
        life.settle()
    assert life.record.observed.restarts == 20


def test_the_first_crash_of_what_was_healthy_costs_no_wait_and_the_next_one_does():
    life = fresh()
    life.settle()
    life.probe(True)
    for crash, longest in ((1, lifecycle.FIRST_CRASH_S), (2, 4.0)):
        life.process = "ended"
        life.settle()
        assert life.record.observed.status == "crashed"
        assert life.record.observed.crashes == crash
        assert life.record.next_start - life.now <= longest + 0.001
        life.now += longest
        life.settle()
        life.probe(True)
    assert life.record.next_start is None


def test_an_end_that_was_asked_for_and_one_before_it_was_healthy_are_no_crashes():
    life = fresh()
    life.settle()
    life.process = "ended"
    life.settle()
    life.now += 301
    life.settle()
    life.probe(True)
    life.assign(generation=1)
    life.settle()
    life.now += 301
    life.settle()
    assert life.record.observed.restarts >= 1
    assert life.record.observed.crashes == 0


def test_a_healthy_period_resets_the_backoff():
    life = fresh()
    life.settle()
    life.probe(True)
    for _ in range(5):
        life.process = "ended"
        life.settle()
        life.now += 301
        life.settle()
    assert life.record.failures == 5
    life.probe(True)
    life.now += lifecycle.HEALTHY_RESET_S
    life.process = "ended"
    life.settle()
    assert life.record.failures == 1


def test_restart_asked_for_does_not_wait_for_the_backoff():
    life = fresh()
    life.settle()
    life.probe(True)
    life.process = "ended"
    life.settle()
    life.assign(generation=1)
    assert life.settle() == ["start"]
    assert life.record.observed.generation == 1


def test_a_running_instance_drains_before_term_and_a_starting_one_does_not():
    life = fresh()
    life.settle()
    life.assign(desired="stop")
    assert life.settle() == ["drain", "terminate", "record_end"]
    life = fresh()
    life.settle()
    life.probe(True)
    life.assign(desired="stop")
    assert life.settle() == ["drain"]
    assert (life.record.observed.status, life.record.observed.draining) == ("stopping", True)
    life.now += life.record.assignment.drain_s
    assert life.settle() == ["terminate", "record_end"]
    assert life.record.observed.status == "stopped"


def test_open_requests_are_waited_for_until_the_longest_drain():
    life = fresh(drain_s=2.0, drain_max_s=30.0)
    life.settle()
    life.probe(True)
    life.assign(desired="stop")
    life.settle()
    life.now += 29.0
    assert life.settle() == []
    life.now += 1.0
    assert life.settle() == ["terminate", "record_end"]


def test_a_drained_instance_ends_at_once_but_never_before_every_ingress_has_dropped_it():
    life = fresh(drain_s=2.0, drain_max_s=30.0)
    life.settle()
    life.probe(True)
    life.assign(desired="stop", drained=True)
    assert life.settle() == ["drain"]
    life.now += 2.0
    assert life.settle() == ["terminate", "record_end"]


def test_a_wish_to_end_is_not_taken_back():
    life = fresh()
    life.settle()
    life.assign(desired="remove")
    life.assign(desired="run")
    assert life.record.assignment.desired == "remove"


def test_probes_that_say_the_same_make_no_report():
    life = fresh()
    life.settle()
    life.probe(True)
    seq = life.record.observed.seq
    state = HealthState("healthy", True)
    again = lifecycle.probed(life.record, state, Probe("2027-01-01T00:00:00.000Z", True, "x"), life.now + 5)
    assert again.observed.seq == seq


def test_never_healthy_within_the_start_period_is_told_and_left_to_the_control_plane():
    life = fresh()
    life.settle()
    state = HealthState("unhealthy", False)
    life.record = lifecycle.probed(life.record, state, Probe(AT, False, "port 1: refused"), life.now + 60)
    assert life.record.observed.health == "unhealthy"
    assert life.record.observed.status == "starting"
    assert life.record.observed.detail == "not healthy within 60 s of its start: port 1: refused"
    assert life.settle() == []


def test_what_ended_with_the_platform_starts_again_without_being_blamed():
    life = fresh()
    life.settle()
    for _ in range(5):
        happen(life, "interrupted", None)
        assert life.settle() == ["record_end", "start"]
    assert life.record.early_exits == 0
    assert life.record.observed.status == "starting"


def test_a_log_that_nobody_takes_does_not_keep_a_removed_instance_for_ever():
    life = fresh()
    life.settle()
    life.assign(desired="remove")
    life.settle()
    assert not life.deleted
    life.now += LOG_PATIENCE_S
    life.settle()
    assert life.deleted


def test_restart_policies_say_what_an_end_by_itself_means():
    for policy, code, status in (
        ("never", 0, "stopped"),
        ("never", 1, "failed"),
        ("on_failure", 0, "stopped"),
        ("on_failure", 1, "crashed"),
        ("always", 0, "crashed"),
    ):
        life = fresh(restart_policy=policy)
        life.settle()
        life.probe(True)
        ended = lifecycle.ended(life.record, Exit(AT, code=code), life.now, 0.5)
        assert ended.observed.status == status, policy


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(EVENTS, max_size=40))
def test_what_runs_once_is_started_once_whatever_happens(events: list[tuple[str, Any]]):
    life = fresh(restart_policy="never", once=True)
    starts = life.settle().count("start")
    for event, value in events:
        happen(life, event, value)
        starts += 0 if life.unavailable else life.settle().count("start")
    assert starts <= 1

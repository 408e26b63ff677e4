"""Rules of the agent's pure modules: transitions, back-off, health, ports, configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import backoff, config, states
from agent.health import FIRST_INTERVAL_S, FIRST_S, STARTING_INTERVAL_S, HealthState, pause, step
from agent.ports import NoPort, Ports
from agent.protocol import HealthCheck
from agent.runtimes.shell import shell_line

UNIT = st.floats(0, 1, exclude_max=True)


def test_no_terminal_status_has_an_exit():
    assert not [pair for pair in states.TRANSITIONS if pair[0] in states.TERMINAL]


def test_every_source_status_has_one_owner():
    owners: dict[str, set[str]] = {}
    for (before, _), owner in states.TRANSITIONS.items():
        owners.setdefault(before, set()).add(owner)
    assert all(len(found) == 1 for found in owners.values())


def test_every_status_but_lost_can_be_reached_from_pending():
    reached = {"pending"}
    while more := {after for before, after in states.TRANSITIONS if before in reached} - reached:
        reached |= more
    assert reached == {"pending", "placed", "starting", "running", "crashed", "stopping", "stopped", "failed"}


def test_the_only_way_back_leads_to_starting():
    rank = ["pending", "placed", "starting", "running", "crashed", "stopping", "stopped", "failed"]
    back = {(a, b) for a, b in states.TRANSITIONS if rank.index(b) < rank.index(a)}
    assert back == {("crashed", "starting"), ("running", "starting")}


def test_a_step_that_is_not_in_the_table_is_refused():
    with pytest.raises(states.TransitionRefused, match="stopped to starting"):
        states.check("stopped", "starting")


@given(st.integers(0, 10_000), UNIT)
def test_backoff_stays_between_one_second_and_five_minutes(failures: int, jitter: float):
    assert 1.0 <= backoff.delay(failures, jitter) <= 300.0


@given(st.integers(1, 40), UNIT, UNIT)
def test_backoff_never_shrinks_by_more_than_its_jitter(failures: int, one: float, other: float):
    assert backoff.delay(failures + 1, one) >= backoff.delay(failures, other) * 0.6


def test_backoff_reaches_its_ceiling_and_spreads_below_it():
    assert backoff.delay(1, 0.0) == 1.0
    assert backoff.delay(30, 0.9) == 300.0
    assert backoff.delay(30, 0.0) == 225.0


CHECKS = st.builds(
    HealthCheck,
    healthy_threshold=st.integers(1, 4),
    unhealthy_threshold=st.integers(1, 4),
    start_period_s=st.floats(1, 100),
    interval_s=st.floats(0.1, 60),
)


@given(CHECKS, st.lists(st.tuples(st.booleans(), st.floats(0.01, 20)), max_size=60))
def test_health_follows_its_thresholds(check: HealthCheck, results: list[tuple[bool, float]]):
    state, since = HealthState(), 0.0
    past: list[bool] = []
    for ok, seconds in results:
        since += seconds
        before = state
        state = step(state, check, ok, since)
        past.append(ok)
        if state.health == "healthy" and before.health != "healthy":
            assert past[-check.healthy_threshold :] == [True] * check.healthy_threshold
        if before.health == "healthy" and state.health == "unhealthy":
            assert past[-check.unhealthy_threshold :] == [False] * check.unhealthy_threshold
        if state.health == "unhealthy" and not state.ever:
            assert since >= check.start_period_s
        assert not (before.ever and not state.ever)


@given(CHECKS, st.floats(0, 200), st.booleans())
def test_probes_come_quickly_only_while_a_new_process_is_awaited(check: HealthCheck, since: float, closed: bool):
    assert pause(HealthState(ever=True), check, since, closed) == check.interval_s
    awaited = pause(HealthState(), check, since, closed)
    if since < check.start_period_s:
        assert 0 < awaited <= min(STARTING_INTERVAL_S, check.interval_s)
        if closed and since < FIRST_S:
            assert awaited <= max(FIRST_INTERVAL_S, since / 8)
    else:
        assert awaited == check.interval_s


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_a_port_is_neither_taken_nor_in_use(taken: set[int], busy: set[int]):
    ports = Ports("127.0.0.1", 2000, 2009, lambda _, port: port - 2000 not in busy)
    for _ in range(3):
        try:
            port = ports.choose({2000 + number for number in taken})
        except NoPort:
            assert taken | busy == set(range(10))
        else:
            assert port - 2000 not in taken | busy


def test_a_port_just_given_back_is_not_the_next_one_out():
    ports = Ports("127.0.0.1", 2000, 2009, lambda *_: True)
    assert [ports.choose(()), ports.choose(()), ports.choose(())] == [2000, 2001, 2002]
    assert ports.choose((), kept=2001) == 2001


def test_a_simple_command_replaces_its_shell_and_others_stay_as_written():
    assert shell_line("gunicorn app:app -b 0.0.0.0:$PORT") == "exec gunicorn app:app -b 0.0.0.0:$PORT"
    for line in ("A=1 python x.py", "a && b", "a | b", "cd x", "trap '' TERM; sleep 1", "x `y`", "x $(y)", "exit 3"):
        assert shell_line(line) == line


def test_a_bad_configuration_names_its_key(tmp_path: Path):
    path = tmp_path / "agent.json"
    good = {
        "node": "n",
        "address": "127.0.0.1",
        "control_plane": ["http://127.0.0.1:1"],
        "token": "t",
        "state_dir": "s",
        "instances_dir": "i",
        "some_newer_key": 1,
    }
    path.write_text(json.dumps(good))
    assert config.load(path).heartbeat_s == 1.0
    for key, value in {"port_range": [5, 1], "control_plane": [], "heartbeat_s": 0, "node": 3}.items():
        path.write_text(json.dumps({**good, key: value}))
        with pytest.raises(config.BadConfig, match=key):
            config.load(path)


def test_the_filter_covers_the_ports_of_every_agent_of_the_host(tmp_path: Path):
    made = [
        config.Config(
            node="n",
            address="127.0.0.1",
            control_plane=["http://x"],
            token="t",
            state_dir="s",
            instances_dir=str(tmp_path),
            index=index,
            port_range=(20000 + 500 * index, 20499 + 500 * index),
            members_on_host=4,
        )
        for index in range(4)
    ]
    assert {each.all_instance_ports for each in made} == {(20000, 21999)}

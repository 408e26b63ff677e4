"""The replicated state: total, pure, and the same for old commands for ever."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.raft import entries, machine

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["id", "node", "name", "on", "epoch", "member", "claim_id", "since", "state", "members", "op"])
OPERATIONS = [op for op, _ in machine._OPERATIONS]
COMMANDS = st.builds(
    lambda op, version, rest: {**rest, "op": op, "v": version},
    st.sampled_from(OPERATIONS) | JSON,
    st.just(1) | JSON,
    st.dictionaries(NAMES, JSON | st.text(max_size=5), max_size=7),
)

# What version 1 wrote into its journals. Never change a line here: such journals exist.
WRITTEN_BY_V1 = [
    b'\x00{"op": "cluster.init", "v": 1, "id": "c1", "created_at": "2026-01-01T00:00:00.000000Z", '
    b'"members": {"10.0.0.1-8000": "10.0.0.1:18000", "10.0.0.2-8000": "10.0.0.2:18000"}}',
    b"\x01",
    b'\x00{"op": "member.seen", "v": 1, "id": "10.0.0.1-8000", "version": "0.1.0", "joined_at": "t0"}',
    b'\x00{"op": "leader.claimed", "v": 1, "member": "10.0.0.1-8000", "epoch": 1, "claim_id": "aa", "since": "t1"}',
    b'\x02["add", "10.0.0.3-8000", "10.0.0.3:18000"]',
    b'\x00{"op": "drain.set", "v": 1, "node": "10.0.0.2-8000", "on": true, "since": "t2", "reason": "disk"}',
    b'\x00{"op": "service.set", "v": 1, "name": "database", "state": "up", "since": "t3", "detail": ""}',
    b'\x00{"op": "leader.claimed", "v": 1, "member": "10.0.0.3-8000", "epoch": 2, "claim_id": "bb", "since": "t4"}',
    b'\x02["rem", "10.0.0.2-8000", "10.0.0.2:18000"]',
    b'\x00{"op": "leader.claimed", "v": 1, "member": "10.0.0.1-8000", "epoch": 1, "claim_id": "aa", "since": "t1"}',
    b'\x00{"op": "of.tomorrow", "v": 7}',
]
STATE_OF_V1 = {
    "cluster": {"id": "c1", "created_at": "2026-01-01T00:00:00.000000Z"},
    "members": {
        "10.0.0.1-8000": {
            "address": "10.0.0.1:18000",
            "http": "10.0.0.1:8000",
            "version": "0.1.0",
            "last_seen_at": None,
            "joined_at": "t0",
        },
        "10.0.0.3-8000": {
            "address": "10.0.0.3:18000",
            "http": "10.0.0.3:8000",
            "version": "",
            "last_seen_at": None,
            "joined_at": None,
        },
    },
    "leader": {"member": "10.0.0.3-8000", "epoch": 2, "claim_id": "bb", "since": "t4"},
    "drains": {},
    "services": {"database": {"state": "up", "since": "t3", "detail": ""}},
}


def run(*commands: dict[str, Any]) -> tuple[machine.State, machine.Reply]:
    state, reply = machine.empty(), {}
    for index, command in enumerate(commands, start=2):
        state, reply = machine.apply(state, command, index)
    return state, reply


@pytest.mark.slow
@given(JSON | COMMANDS)
def test_no_command_raises_and_a_refusal_changes_nothing(command: Any) -> None:
    state, _ = run({"op": "cluster.init", "v": 1, "id": "c", "created_at": "t", "members": {"a-1": "a:2"}})
    after, reply = machine.apply(state, command, 7)
    assert reply["index"] == 7
    assert isinstance(reply["ok"], bool)
    if not reply["ok"]:
        assert after == state
    json.dumps(after)


@pytest.mark.slow
@given(st.lists(COMMANDS, max_size=8))
def test_the_same_commands_make_the_same_state_and_change_no_earlier_one(commands: list[dict[str, Any]]) -> None:
    states = [machine.empty()]
    for index, command in enumerate(commands):
        before = copy.deepcopy(states[-1])
        states.append(machine.apply(states[-1], command, index)[0])
        assert states[-2] == before
    again = machine.empty()
    for index, command in enumerate(commands):
        again, _ = machine.apply(again, command, index)
    assert repr(again) == repr(states[-1])


@given(COMMANDS)
def test_a_repeated_command_changes_nothing_more(command: dict[str, Any]) -> None:
    once, _ = run(command)
    twice, _ = run(command, command)
    assert repr(once) == repr(twice)


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"\x00" + tail))
def test_no_entry_raises(entry: bytes) -> None:
    entries.change_in(entry)
    _, reply = entries.apply(machine.empty(), entry, 3)
    assert isinstance(reply["ok"], bool)


def test_a_deeply_nested_entry_is_a_refusal() -> None:
    state, reply = entries.apply(machine.empty(), b"\x00" + b"[" * 30_000, 3)
    assert not reply["ok"]
    assert state == machine.empty()


def test_commands_of_the_first_version_mean_what_they_meant() -> None:
    state = machine.empty()
    for index, entry in enumerate(WRITTEN_BY_V1, start=2):
        state, _ = entries.apply(state, entry, index)
    assert state == STATE_OF_V1


def test_an_older_epoch_takes_no_newer_ones_place() -> None:
    claims = [
        {"op": "leader.claimed", "v": 1, "member": "b-1", "epoch": 5, "claim_id": "y", "since": "t"},
        {"op": "leader.claimed", "v": 1, "member": "a-1", "epoch": 4, "claim_id": "x", "since": "t"},
    ]
    state, reply = run(*claims)
    assert state["leader"]["member"] == "b-1"
    assert (reply["ok"], reply["code"]) == (False, "old_epoch")
    state, reply = run(*claims, {"op": "leader.restored", "v": 1}, claims[1])
    assert reply["ok"]
    assert state["leader"]["epoch"] == 4


def test_a_cluster_is_founded_once() -> None:
    found = {"op": "cluster.init", "v": 1, "id": "c1", "created_at": "t", "members": {"a-1": "a:2"}}
    assert run(found, found)[1]["ok"]
    state, reply = run(found, {**found, "id": "c2", "members": {"b-1": "b:2"}})
    assert reply["code"] == "another_cluster"
    assert state["cluster"]["id"] == "c1"
    assert list(state["members"]) == ["a-1"]


def test_voters_are_the_configured_ones_until_the_cluster_is_founded() -> None:
    founders = {"a-1": "a:2", "b-1": "b:2"}
    assert entries.voters(machine.empty(), founders) == founders
    state, _ = run({"op": "cluster.init", "v": 1, "id": "c1", "created_at": "t", "members": {"a-1": "a:9"}})
    assert entries.voters(state, founders) == {"a-1": "a:9"}


def test_a_member_that_left_leaves_no_drain_behind() -> None:
    state, _ = run(
        {"op": "cluster.init", "v": 1, "id": "c1", "created_at": "t", "members": {"a-1": "a:2", "b-1": "b:2"}},
        {"op": "drain.set", "v": 1, "node": "b-1", "on": True, "since": "t"},
    )
    state, _ = entries.apply(state, entries.make_change(entries.Change("rem", "b-1", "b:2")), 4)
    assert list(state["members"]) == ["a-1"]
    assert state["drains"] == {}


@pytest.mark.parametrize(("id", "http"), [("127.0.0.1-8000", "127.0.0.1:8000"), ("fd00::1-8000", "[fd00::1]:8000")])
def test_the_web_address_follows_from_the_id(id: str, http: str) -> None:
    assert machine.http_of(id) == http

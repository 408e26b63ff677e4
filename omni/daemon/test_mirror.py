"""The replicated state says what the leader saw; applied by the real machine, as every member applies it."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.fake import FakeLease
from consensus.lease import ConsensusUnavailable
from consensus.raft import machine
from omni.api import parts
from omni.api.parts import Database, NodeSeen
from omni.daemon.mirror import Mirror, changes
from omni.kernel.probes import Probe
from services import standings

UP, DOWN = {"status": "up", "latency_ms": 1.0}, {"status": "down", "detail": "ConnectionError"}


class Raft:
    """The client of a cluster of one."""

    def __init__(self) -> None:
        self.state = machine.empty()
        self.commands: list[dict[str, Any]] = []
        self.away = False

    def status(self, timeout_s: float) -> dict[str, Any]:
        if self.away:
            raise ConsensusUnavailable("no")
        return {"state": self.state}

    def submit(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        self.commands.append(command)
        self.state, reply = machine.apply(self.state, command, len(self.commands))
        return reply


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the probes answer; a test changes it."""
    found: dict[str, Any] = {"database": Database(True), "broker": UP, "ingress": UP}
    for name in found:
        monkeypatch.setattr(parts, name, _Now(lambda name=name: found[name], lambda why: found["broker"]))
    monkeypatch.setattr(standings, "latest", lambda: None)  # of a watch that another test ran in this process
    return found


class _Now(Probe[Any]):
    def begin(self, fresh_s: float = 0.0) -> None:
        pass

    def answer(self, bound_s: float = 0.0) -> Any:
        return self._ask()


def test_the_claim_comes_first_and_what_is_known_is_not_said_again(seen: dict[str, Any], lease: FakeLease) -> None:
    raft = Raft()
    lease.hold(5, "abc")
    mirror = Mirror(raft, lease, "a-1")  # type: ignore[arg-type]
    mirror.tick()
    assert (raft.state["leader"]["member"], raft.state["leader"]["epoch"]) == ("a-1", 5)
    assert {name: record["state"] for name, record in raft.state["services"].items()} == {
        "database": "up", "broker": "up", "ingress": "up",
    }  # fmt: skip
    said = len(raft.commands)
    mirror.tick()
    assert len(raft.commands) == said, "nothing differs: nothing is replicated"


def test_a_restored_database_may_count_from_a_lower_epoch(seen: dict[str, Any], lease: FakeLease) -> None:
    raft = Raft()
    lease.hold(1000, "before")
    Mirror(raft, lease, "a-1").tick()  # type: ignore[arg-type]
    lease.hold(3, "after")
    Mirror(raft, lease, "b-2").tick()  # type: ignore[arg-type]
    assert (raft.state["leader"]["member"], raft.state["leader"]["epoch"]) == ("b-2", 3)


def test_a_follower_says_nothing(seen: dict[str, Any], lease: FakeLease) -> None:
    raft = Raft()
    lease.lose("b:2")
    Mirror(raft, lease, "a-1").tick()  # type: ignore[arg-type]
    assert raft.commands == []


def test_without_quorum_the_copy_waits(seen: dict[str, Any], lease: FakeLease) -> None:
    raft = Raft()
    mirror = Mirror(raft, lease, "a-1")  # type: ignore[arg-type]
    raft.away = True
    mirror.tick()
    raft.away = False
    mirror.tick()
    assert raft.state["leader"]["member"] == "a-1"


def _state_after(state: dict[str, Any], *arguments: Any) -> dict[str, Any]:
    for command in list(changes(state, *arguments)):
        state, reply = machine.apply(state, command, 1)
        assert reply["ok"], (command, reply)
    return state


def test_drains_and_agents_follow_the_nodes() -> None:
    nodes = (NodeSeen("a-1", "ready", False), NodeSeen("b-2", "draining", True), NodeSeen("c-3", "lost", True))
    state = _state_after(machine.empty(), Database(True, nodes=nodes), {"broker": UP}, "t1")
    assert set(state["drains"]) == {"b-2", "c-3"}
    assert state["services"]["agent a-1"] == {"state": "up", "since": "t1", "detail": "ready"}
    assert state["services"]["agent c-3"]["state"] == "down"
    state = _state_after(state, Database(True, nodes=(NodeSeen("b-2", "ready", False),)), {"broker": UP}, "t2")
    assert state["drains"] == {}
    assert {name for name in state["services"] if name.startswith("agent")} == {"agent b-2"}
    assert state["services"]["agent b-2"] == {"state": "up", "since": "t1", "detail": "ready"}, "up since t1"


def test_with_the_database_down_the_nodes_stay_as_they_were() -> None:
    nodes = (NodeSeen("a-1", "ready", True),)
    before = _state_after(machine.empty(), Database(True, nodes=nodes), {"broker": UP}, "t1")
    after = _state_after(before, Database(False, "OperationalError"), {"broker": DOWN}, "t2")
    assert after["drains"] == before["drains"]
    assert after["services"]["agent a-1"] == before["services"]["agent a-1"]
    assert after["services"]["database"] == {"state": "down", "since": "t2", "detail": "OperationalError"}
    assert after["services"]["broker"]["state"] == "down"

"""The traps of PySyncObj 0.3.17, one by one, in a simulated world: each fault shown where it can be, and its cure."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from consensus.raft import entries
from consensus.raft import journal as journals
from consensus.raft.conftest import THREE, Make
from consensus.raft.core import Core, SyncObj
from consensus.raft.elections import UNWILLING_S
from consensus.raft.replication import Diverged
from consensus.raft.simulated import TIMINGS, World


def until_led_by(world: World, those: set[str | None], seconds: float) -> bool:
    return world.run(seconds, lambda: world.leader() in those)


# Elections.


def test_an_isolated_follower_does_not_depose_the_leader_when_it_returns(make: Make) -> None:
    world = make()
    leader = world.led()
    term = world.members[leader].term
    for follower in [id for id in THREE if id != leader] * 2:
        world.isolate(follower)
        world.run(6.0)
        world.heal()
        world.run(2.0)
        assert world.leader() == leader
        assert {member.term for member in world.members.values()} == {term}


def test_without_pre_vote_it_would(make: Make) -> None:
    class Impatient(Core):
        def _consider_campaign(self, now: float) -> None:
            if self.role != "leader" and now >= self._election.deadline:
                self._election.clear()

    world = make(core=Impatient)
    leader = world.led()
    term = world.members[leader].term
    world.isolate(next(id for id in THREE if id != leader))
    world.run(2.0)  # the connections are not given up yet: it campaigns into the void
    world.heal()
    world.run(2.0)
    assert world.members[leader].term > term


def test_a_leader_that_is_cut_off_stops_before_another_one_exists(make: Make) -> None:
    for seed in range(8):
        world = make(seed=seed)
        leader = world.led()
        world.isolate(leader)
        cut_at = world.now
        assert until_led_by(world, {None}, 0.29)  # ends by itself; World checks that no two overlap
        assert world.now - cut_at < TIMINGS.lease_s + 0.06
        assert until_led_by(world, {*THREE} - {leader}, 3.0)


def test_a_broken_connection_to_the_leader_elects_at_once(make: Make) -> None:
    taken = []
    for seed in range(10):
        world = make(seed=seed)
        leader = world.led()
        world.run(1.0)
        world.crash(leader)
        at = world.now
        assert world.run(2.0, lambda world=world: world.leader() is not None)
        taken.append(world.now - at)
    assert sorted(taken)[8] < 0.2


def test_haste_does_not_depose_a_healthy_leader(make: Make) -> None:
    world = make(ids=["a-1", "b-1", "c-1", "d-1", "e-1"])
    leader = world.led()
    term = world.members[leader].term
    others = [id for id in world.ids if id != leader]
    for _ in range(20):
        for other in world.random.sample(others, 2):
            world.hang_up(leader, other)
        world.run(0.3)
    assert (world.leader(), world.members[leader].term) == (leader, term)


def test_a_member_stuck_with_a_higher_term_is_heard(make: Make) -> None:
    world = make()
    leader = world.led()
    stuck = next(id for id in THREE if id != leader)
    world.members[stuck].journal.setCurrentTerm(50, stuck)
    world.members[stuck]._SyncObj__raftCurrentTerm = 50
    world.write("x")
    assert world.run(5.0, world.settled)
    assert all("x" in member.state["services"] for member in world.members.values())


def test_a_member_that_could_not_lead_waits_but_not_for_ever(make: Make) -> None:
    world = make()
    leader = world.led()
    others = [id for id in THREE if id != leader]
    world.members[others[0]].willing = False
    world.crash(leader)
    assert world.run(1.5, lambda: world.leader() == others[1])
    world.start(leader)
    assert world.run(5.0, world.settled)
    for id in (leader, others[0]):
        world.members[id].willing = False
    world.crash(others[1])
    assert not world.run(UNWILLING_S, lambda: world.leader() is not None)
    assert world.run(UNWILLING_S, lambda: world.leader() is not None)


def test_the_leadership_can_be_handed_over(make: Make) -> None:
    world = make()
    leader = world.led()
    to = next(id for id in THREE if id != leader)
    world.write("x")
    member = world.members[leader]
    assert world.run(1.0, lambda: member.lag(to) == 0)
    member.prepare_transfer()
    assert not member.established
    world.submit(leader, "meanwhile")
    assert member.hand_over(to)
    at = world.now
    assert world.run(1.0, lambda: world.leader() == to)
    assert world.now - at < 0.1
    member.abandon_transfer()
    assert world.run(1.0, lambda: world.outcomes.get("meanwhile") == "applied")


def test_a_restart_keeps_term_and_vote(make: Make) -> None:
    world = make()
    world.led()
    before = {id: (m.term, m.journal.getVotedForNodeId()) for id, m in world.members.items()}
    for id in THREE:
        world.crash(id, power_cut=True)
    world.start(*THREE)
    assert {id: (m.term, m.journal.getVotedForNodeId()) for id, m in world.members.items()} == before
    assert world.run(5.0, world.settled)
    assert world.members[THREE[0]].term > before[THREE[0]][0]


# The log.


def _stray_then_snapshot(world: World) -> list[str]:
    """An old leader with entries that never reached anybody meets a snapshot; how its proposers were answered."""
    leader = world.led()
    world.detail = "x" * 1000
    for number in range(40):
        world.write(f"before-{number}")
    world.isolate(leader)
    for number in range(30):
        world.submit(leader, f"stray-{number}")
    assert world.run(3.0, lambda: world.leader() not in (None, leader))
    for number in range(60):
        world.write(f"after-{number}")
    for id, member in world.members.items():
        if id != leader:
            member.forceLogCompaction()
    world.run(3.0)
    world.latency = (0.001, 0.02)
    world.heal()
    assert world.run(10.0, world.settled)
    world.run(1.0)
    return [outcome for name, outcome in world.outcomes.items() if name.startswith("stray") and outcome == "applied"]


class Uncured(Core):
    """PySyncObj as it is, for a follower's side of the log."""

    def _on_append(self, node: Any, message: Any) -> None:
        self._election.heard(0.0)
        self._stamps[node.id] = message["at"]
        SyncObj._SyncObj__onMessageReceived(self, node, message)

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        from consensus.raft import snapshot

        whole = snapshot.read(self._snapshot_path)
        self.journal.clear()
        self.journal.add(*whole.previous)
        self.journal.add(*whole.last)
        self.state = whole.state
        self._SyncObj__raftLastApplied = whole.last[1]


@pytest.mark.slow
def test_without_the_cure_stray_entries_are_called_a_success(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, called = entries.apply, []
    for seed in range(40):  # it takes a tick between two chunks
        world = make(core=Uncured, seed=seed)
        monkeypatch.setattr(entries, "apply", apply)  # what it applies is not watched
        called += _stray_then_snapshot(world)
        if called:
            break
    assert called


@pytest.mark.slow
def test_a_snapshot_never_makes_stray_entries_a_success(make: Make) -> None:
    for seed in range(5):
        world = make(seed=seed)
        assert _stray_then_snapshot(world) == []
        assert not any(name.startswith("stray") for name in world.members[THREE[0]].state["services"])
        world.verdict()


def test_entries_that_a_follower_has_are_not_deleted_and_added_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make()
    leader = world.led()
    for number in range(5):
        world.write(f"c{number}")
    follower = world.members[next(id for id in THREE if id != leader)]
    deleted: list[int] = []
    monkeypatch.setattr(journals.Journal, "deleteEntriesFrom", lambda _self, position: deleted.append(position))
    log = follower.journal
    old = {"type": "append_entries", "term": follower.term, "commit_index": 1, "at": 1}
    node = next(peer for peer in follower.otherNodes if peer.id == leader)
    before = list(log.entries)
    for count in (0, 1, 2):  # late copies of what it was told long ago
        late = tuple(log[1 : 1 + count])
        message = {**old, "prevLogIdx": log[0][1], "prevLogTerm": log[0][2], "entries": late}
        follower._SyncObj__onMessageReceived(node, message)
    assert (deleted, list(log.entries)) == ([], before)
    assert follower.commit_index > 1


def test_an_answer_of_an_earlier_term_counts_for_nothing(make: Make) -> None:
    world = make()
    leader = world.members[world.led()]
    node = next(iter(leader.otherNodes))
    match = leader._SyncObj__raftMatchIndex[node]
    late = {"type": "next_node_idx", "next_node_idx": 99, "reset": False, "success": True, "echo": 10**15}
    leader._SyncObj__onMessageReceived(node, {**late, "term": leader.term - 1})
    assert leader._SyncObj__raftMatchIndex[node] == match
    assert leader.lease_until <= world.now + TIMINGS.lease_s


def test_a_late_member_gets_a_snapshot(make: Make) -> None:
    world = make()
    world.compact_after = 20
    world.led("a-1", "b-1")
    for number in range(60):
        world.write(f"c{number}")
    world.run(1.0)
    assert world.members["a-1"].journal[0][1] > 20
    world.start("c-1")
    assert world.run(5.0, world.settled)
    assert len(world.members["c-1"].state["services"]) == 60
    assert not world.members["c-1"].fresh


def test_everything_survives_compaction_and_restart(make: Make) -> None:
    world = make()
    world.compact_after = 20
    world.led()
    for number in range(50):
        world.write(f"c{number}")
    term = world.members["a-1"].term
    for id in THREE:
        world.crash(id, power_cut=True)
    world.start(*THREE)
    assert world.run(5.0, world.settled)
    assert len(world.members["b-1"].state["services"]) == 50
    assert world.members["b-1"].term > term
    world.verdict()


@pytest.mark.parametrize(
    "poison", [b"\x00", b"\x00{", b"\x00" + b"[" * 9000, b"\x02", b"\x02[1]", b"\x03x", b"\x63", b"\x80\x04."]
)
def test_no_entry_wedges_a_member(make: Make, poison: bytes) -> None:
    world = make()
    leader = world.members[world.led()]
    done: list[tuple[Any, int]] = []
    leader._applyCommand(poison, lambda reply, reason: done.append((reply, reason)))
    world.write("after")
    assert len(done) == 1
    assert world.run(2.0, world.settled)


def test_a_command_through_a_follower_is_applied_once(make: Make) -> None:
    world = make()
    leader = world.led()
    follower = next(id for id in THREE if id != leader)
    for number in range(20):
        world.write(f"c{number}", through=follower)
    assert set(world.outcomes.values()) == {"applied"}
    assert sum(b'"c7"' in entry for entry in world.applied.values()) == 1


def test_without_a_leader_a_command_is_refused_at_once(make: Make) -> None:
    world = make()
    leader = world.led()
    for id in THREE:
        if id != leader:
            world.crash(id)
    world.run(1.0)
    world.submit(leader, "x")
    world.run(0.05)
    assert world.outcomes["x"] == "not_applied"


def test_a_full_disk_delays_the_snapshot_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    world = make()
    world.compact_after = 20
    world.led()
    with monkeypatch.context() as patch:
        patch.setattr("consensus.raft.snapshot.write", full)
        for number in range(60):
            world.write(f"c{number}")
        assert world.members["a-1"].journal[0][1] == 1
    world.run(11.0)
    assert world.members["a-1"].journal[0][1] > 20


def test_a_history_that_the_majority_forgot_is_given_up(make: Make) -> None:
    world = make()
    world.led()
    for number in range(5):
        world.write(f"c{number}")
    for id in THREE:
        world.crash(id)
    for id in ("a-1", "b-1"):
        world.wipe(id)
    world.applied.clear()
    world.led_in.clear()
    world.start("a-1", "b-1")
    assert world.run(5.0, world.settled)
    for number in range(9):
        world.write(f"new{number}")
    world.start("c-1")
    with pytest.raises((Diverged, AssertionError), match=r"committed here|applied at"):
        world.run(20.0)


def test_importing_the_library_leaves_the_socket_module_alone() -> None:
    """It puts a function for Windows in the place of socket.inet_ntop, wherever it is imported."""
    assert socket.inet_ntop(socket.AF_INET, bytes([127, 0, 0, 1])) == "127.0.0.1"

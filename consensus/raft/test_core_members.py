"""Who is a member, and what one may do that lost its files: in a simulated world."""

from __future__ import annotations

from consensus.raft.conftest import THREE, Make
from consensus.raft.simulated import TIMINGS, World


def found(world: World) -> str:
    leader = world.led()
    member = world.members[leader]
    command = {"op": "cluster.init", "v": 1, "id": "c", "created_at": "t", "members": member.voters}
    member.submit(command, lambda _reply, _outcome: None)
    assert world.run(2.0, world.settled)
    return leader


def change(world: World, verb: str, id: str) -> str:
    outcomes: list[str] = []
    member = world.members[str(world.leader())]
    if verb == "add":
        member.add_voter(id, f"{id}:1", lambda _reply, outcome: outcomes.append(outcome))
    else:
        member.remove_voter(id, lambda _reply, outcome: outcomes.append(outcome))
    assert world.run(3.0, lambda: bool(outcomes))
    return outcomes[0]


def test_a_member_is_added_and_removed_and_a_restart_remembers(make: Make) -> None:
    world = make()
    leader = found(world)
    world.ids = [*THREE, "d-1"]
    world.start("d-1")
    world.run(1.0)
    assert world.members["d-1"].leader is None
    assert change(world, "add", "d-1") == "applied"
    assert world.run(5.0, world.settled)
    assert all(set(member.voters) == {*THREE, "d-1"} for member in world.members.values())
    gone = next(id for id in THREE if id != leader)
    assert change(world, "rem", gone) == "applied"
    world.crash(gone)
    for id in list(world.members):
        world.crash(id, power_cut=True)
    world.ids = THREE  # what the configuration still says
    left = sorted({*THREE, "d-1"} - {gone})
    world.start(*[id for id in left if id != "d-1"])
    world.ids = [*THREE, "d-1"]
    world.start("d-1")
    assert world.run(5.0, world.settled)
    assert all(sorted(member.voters) == left for member in world.members.values())
    assert all(sorted(member.state["members"]) == left for member in world.members.values())


def test_a_leader_that_was_added_while_a_member_was_away_is_followed(make: Make) -> None:
    world = make(ids=["a-1", "b-1", "c-1", "d-1"])
    leader = found(world)
    away, moved, other = [id for id in world.ids if id != leader]
    assert change(world, "rem", moved) == "applied"
    assert world.run(2.0, lambda: moved not in world.members[away].voters)
    world.isolate(away)
    assert change(world, "add", moved) == "applied"
    assert world.run(2.0, lambda: world.members[leader].lag(moved) == 0)
    world.members[leader].prepare_transfer()
    assert world.members[leader].hand_over(moved)
    assert world.run(2.0, lambda: world.leader() == moved)
    world.members[leader].abandon_transfer()
    world.run(3.0)
    world.heal()
    assert moved not in world.members[away].voters
    assert world.run(3.0, world.settled)
    assert world.members[away].leader == moved
    assert other in world.members[away].voters


def test_a_removed_member_disturbs_nobody(make: Make) -> None:
    world = make()
    leader = found(world)
    term = world.members[leader].term
    gone = next(id for id in THREE if id != leader)
    assert change(world, "rem", gone) == "applied"
    world.run(10.0)
    assert (world.leader(), world.members[leader].term) == (leader, term)
    assert change(world, "rem", gone) == "applied"


def test_a_leader_does_not_take_itself_out(make: Make) -> None:
    world = make()
    leader = found(world)
    assert change(world, "rem", leader) == "not_applied"
    assert set(world.members[leader].voters) == set(THREE)
    assert world.members[leader].is_voter


def test_a_change_that_was_never_committed_is_taken_back(make: Make) -> None:
    world = make()
    leader = found(world)
    world.isolate(leader)
    world.members[leader].add_voter("d-1", "d:1", lambda _reply, _outcome: None)
    world.run(0.1)
    assert "d-1" in world.members[leader].voters
    assert world.run(3.0, lambda: world.leader() not in (None, leader))
    world.write("x")
    world.heal()
    assert world.run(5.0, world.settled)
    assert set(world.members[leader].voters) == set(THREE)


def test_a_member_that_lost_its_files_does_not_vote_before_it_has_caught_up(make: Make) -> None:
    """b acknowledged an entry with the leader a, lost its files, and a died: c, without the entry, must not win."""
    world = make(ids=THREE)
    leader = world.led()
    other, third = [id for id in THREE if id != leader]
    world.isolate(third)
    world.write("promised")
    world.crash(other)
    world.wipe(other)
    world.crash(leader)
    world.heal()
    world.start(other)
    assert not world.run(TIMINGS.fresh_wait_s - 1.0, lambda: world.leader() is not None)
    world.start(leader)
    assert world.run(5.0, world.settled)
    assert not world.members[other].fresh
    world.verdict()


def test_after_a_long_wait_it_votes_in_a_term_that_it_cannot_have_voted_in(make: Make) -> None:
    world = make()
    leader = world.led()
    other, third = [id for id in THREE if id != leader]
    world.crash(other)
    world.wipe(other)
    world.crash(leader)
    term = world.members[third].term
    world.start(other)
    assert world.run(TIMINGS.fresh_wait_s + 8.0, lambda: world.leader() == third)
    assert world.members[third].term > term + 900


def test_a_new_cluster_begins_with_a_majority(make: Make) -> None:
    world = make(ids=["a-1", "b-1", "c-1", "d-1"])
    world.start("a-1", "b-1")
    assert not world.run(3.0, lambda: world.leader() is not None)
    world.start("c-1")
    assert world.run(3.0, lambda: world.leader() is not None)
    world.start("d-1")
    assert world.run(3.0, world.settled)
    assert not any(member.fresh for member in world.members.values())

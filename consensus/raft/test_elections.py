"""Who may campaign, and who would vote for whom: rules, without time or network."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from consensus.raft.elections import UNWILLING_S, Election, Log, Timings, Voter, grants

LOGS = st.builds(Log, st.integers(0, 5), st.integers(0, 5))
T = Timings()


def voter(**changed: object) -> Voter:
    return Voter(**{"term": 3, "vote": None, "log": Log(3, 10), "hears_leader": False, **changed})  # type: ignore[arg-type]


def test_who_hears_the_leader_refuses() -> None:
    assert not grants(voter(hears_leader=True), "a-1", 9, Log(9, 99))


def test_a_log_that_is_behind_gets_no_vote() -> None:
    assert not grants(voter(), "a-1", 4, Log(3, 9))
    assert not grants(voter(), "a-1", 4, Log(2, 99))
    assert grants(voter(), "a-1", 4, Log(3, 10))


def test_a_vote_is_given_once_a_term() -> None:
    assert not grants(voter(term=4, vote="b-1"), "a-1", 4, Log(4, 10))
    assert grants(voter(term=4, vote="a-1"), "a-1", 4, Log(4, 10))
    assert not grants(voter(term=5), "a-1", 4, Log(4, 10))


def test_a_member_that_forgot_its_votes_gives_none() -> None:
    assert not grants(voter(may_vote=False), "a-1", 9, Log(9, 99))


@given(LOGS, LOGS)
def test_of_two_logs_one_is_not_behind(one: Log, other: Log) -> None:
    assert one.not_behind(other) or other.not_behind(one)


def test_a_majority_clears_the_way_and_answers_of_an_older_round_do_not() -> None:
    election = Election(T, 0.0)
    old = election.ask(1.0)
    round = election.ask(2.0)
    assert not election.answered("b-1", old, granted=True, voters=5)
    assert not election.answered("b-1", round, granted=True, voters=5)
    assert not election.answered("b-1", round, granted=True, voters=5)
    assert not election.answered("c-1", round, granted=False, voters=5)
    assert not election.cleared
    assert election.answered("d-1", round, granted=True, voters=5)
    assert election.cleared


def test_a_leader_that_speaks_meanwhile_ends_the_round() -> None:
    election = Election(T, 0.0)
    round = election.ask(1.0)
    election.heard(1.01)
    assert not election.answered("b-1", round, granted=True, voters=3)


def test_the_members_hurry_one_after_the_other_when_the_leaders_connection_breaks() -> None:
    dues = []
    for rank in range(4):
        election = Election(T, 0.0)
        election.deadline = 10.5
        election.leader_gone(10.0, rank)
        dues.append(election.due(willing=True))
        assert not election.hears_leader(10.0)
    assert dues == sorted(dues)
    assert dues[0] < 10.02
    assert dues[3] < 10.1


def test_haste_ends_after_a_while() -> None:
    election = Election(T, 0.0)
    election.leader_gone(10.0, 0)
    election.ask(10.01)
    assert election.due(willing=True) < 10.1
    election.ask(10.7)
    assert election.due(willing=True) == election.deadline >= 10.7 + T.election_min_s


def test_votes_that_were_split_in_haste_are_asked_for_again_soon() -> None:
    election = Election(T, 0.0)
    election.deadline = 10.5
    election.leader_gone(10.0, 0)
    election.clear()
    election.stand(10.02)
    assert 10.1 < election.due(willing=True) < 10.25
    election.heard(10.1)
    election.stand(10.1)
    assert election.due(willing=True) == election.deadline


def test_who_could_not_lead_waits_for_those_who_could() -> None:
    election = Election(T, 0.0)
    election.deadline = 5.0
    election.leader_gone(4.9, 0)
    assert election.due(willing=False) == 5.0 + UNWILLING_S


def test_a_member_that_just_started_may_have_heard_a_leader() -> None:
    election = Election(T, 100.0)
    assert election.hears_leader(100.0 + T.election_min_s - 0.01)
    assert not election.hears_leader(100.0 + T.election_min_s + 0.01)
    assert election.heard_at == -math.inf

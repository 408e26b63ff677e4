"""The majority rule and the damping: what no arrangement of vantage points may bring about."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.decision import Assessment, Damping, Memory, Reading, Votes, assess, remember

verdicts = st.sampled_from(["passing", "warning", "failing", "unknown"])
groups = st.lists(verdicts, max_size=9)
RANK = {"healthy": 0, "degraded": 1, "unhealthy": 2}
NO_VOTES = Votes()


def readings(given_verdicts):
    return [Reading(f"node-{number}", verdict) for number, verdict in enumerate(given_verdicts)]


def state_of(given_verdicts, **more):
    return assess(len(given_verdicts), readings(given_verdicts), **more).state


def seen(state: str, detail: str = "") -> Assessment:
    return Assessment(state, state, detail, NO_VOTES)


@given(groups)
def test_unhealthy_means_that_more_than_half_of_all_say_so(given_verdicts):
    failing = given_verdicts.count("failing")
    assert (state_of(given_verdicts) == "unhealthy") == (2 * failing > len(given_verdicts))


@given(st.integers(2, 9))
def test_one_nodes_broken_network_is_no_outage(others):
    assert state_of(["failing"] + ["passing"] * others) == "degraded"


@given(groups)
def test_healthy_means_a_majority_passes_and_nobody_complains(given_verdicts):
    healthy = state_of(given_verdicts) == "healthy"
    passing = given_verdicts.count("passing")
    complaints = given_verdicts.count("failing") + given_verdicts.count("warning")
    assert healthy == (2 * passing > len(given_verdicts) and complaints == 0)


@given(groups, st.randoms())
def test_the_order_of_the_vantage_points_changes_nothing(given_verdicts, random):
    shuffled = readings(given_verdicts)
    random.shuffle(shuffled)
    assert assess(len(shuffled), shuffled) == assess(len(shuffled), readings(given_verdicts))


@given(groups, st.data())
def test_a_vantage_point_that_begins_to_fail_never_makes_it_better(given_verdicts, data):
    if "passing" not in given_verdicts:
        return
    place = data.draw(st.sampled_from([i for i, v in enumerate(given_verdicts) if v == "passing"]))
    worse = [*given_verdicts[:place], "failing", *given_verdicts[place + 1 :]]
    before, after = state_of(given_verdicts), state_of(worse)
    if before in RANK and after in RANK:
        assert RANK[after] >= RANK[before]


@given(groups)
def test_maintenance_beats_everything(given_verdicts):
    assert state_of(given_verdicts, maintenance=True) == "maintenance"


@given(groups)
def test_nothing_is_unhealthy_while_it_starts(given_verdicts):
    assert state_of(given_verdicts, starting=True) != "unhealthy"


@given(st.integers(0, 9))
def test_silence_is_unknown(expected):
    assert assess(expected, []).state == "unknown"


def test_silent_vantage_points_count_as_places_not_as_votes():
    assert assess(3, readings(["passing"])).state == "unknown"
    assert assess(3, readings(["failing"])).state == "unknown"
    assert assess(3, readings(["passing", "passing"])).state == "healthy"
    assert assess(3, readings(["failing", "failing"])).state == "unhealthy"
    assert assess(3, readings(["failing", "passing"])).state == "degraded"


@given(groups)
def test_every_place_is_counted_once(given_verdicts):
    votes = assess(len(given_verdicts) + 2, readings(given_verdicts)).votes
    assert votes.passing + votes.warning + votes.failing + votes.unknown == len(given_verdicts) + 2


def test_the_detail_is_what_most_of_them_say():
    told = [Reading("a", "failing", "refused"), Reading("b", "failing", "timeout"), Reading("c", "failing", "refused")]
    assert assess(3, told).detail == "failing at 3 of 3: refused"


# -- damping


states = st.sampled_from(["healthy", "degraded", "unhealthy", "unknown", "maintenance"])
looks = st.lists(st.tuples(st.floats(0.1, 300), states), max_size=60)


def play(sequence, memory=None, damping=Damping()):  # noqa: B008
    memory, now, shown = memory or Memory(), 1_000_000.0, []
    for pause, state in sequence:
        now += pause
        memory = remember(memory, seen(state), now, damping)
        shown.append((now, state, memory))
    return shown


@given(looks)
def test_what_is_shown_is_what_was_seen_or_says_why_not(sequence):
    before = Memory()
    for now, state, memory in play(sequence):
        if memory.state != state:
            held = state == "unknown" and memory.state == before.state and now - memory.unknown_since < 15
            assert held or (memory.flapping and (memory.state, memory.reason) == ("degraded", "flapping"))
        before = memory


@given(looks)
def test_since_is_when_the_shown_state_began(sequence):
    before = Memory()
    for now, _, memory in play(sequence):
        assert memory.since == (before.since if memory.state == before.state else now)
        before = memory


@given(looks)
def test_points_never_grow_by_more_than_one_a_look(sequence):
    before = Memory()
    for _, _, memory in play(sequence):
        assert 0 <= memory.points <= before.points + 1
        before = memory


def test_a_service_that_changes_all_the_time_is_flapping_and_stays_degraded_until_it_is_quiet():
    shown = play([(5, "healthy" if n % 2 else "unhealthy") for n in range(20)])
    assert [memory.flapping for _, _, memory in shown][-10:] == [True] * 10
    assert {memory.state for _, _, memory in shown[-10:]} == {"degraded"}
    now, _, memory = shown[-1]
    while memory.flapping:
        now += 5
        memory = remember(memory, seen("unhealthy"), now)
    assert memory.state == "unhealthy"
    assert 60 < now - shown[-1][0] < 900


def test_three_changes_are_no_flapping():
    shown = play([(10, "healthy"), (10, "unhealthy"), (10, "healthy"), (10, "unhealthy")])
    assert not any(memory.flapping for _, _, memory in shown)
    assert [memory.state for _, _, memory in shown] == ["healthy", "unhealthy", "healthy", "unhealthy"]


def test_unknown_is_said_only_after_a_while_and_costs_no_points():
    shown = play([(5, "healthy"), (5, "unknown"), (5, "unknown"), (5, "unknown"), (5, "unknown"), (5, "healthy")])
    assert [memory.state for _, _, memory in shown] == ["healthy"] * 4 + ["unknown", "healthy"]
    assert shown[-1][2].points == 0


def test_a_new_leader_that_has_heard_nothing_yet_changes_nothing():
    stored = Memory("unhealthy", 10.0, "failing", "refused", seen="unhealthy")
    assert replace(remember(stored, seen("unknown"), 1000.0), unknown_since=None) == stored


def test_maintenance_forgets_the_flapping():
    shown = play([(1, "healthy" if n % 2 else "unhealthy") for n in range(12)] + [(1, "maintenance"), (1, "healthy")])
    assert shown[-1][2].state == "healthy"
    assert not shown[-1][2].flapping

"""What follows from what each host holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from releases.copy_keeper import Host, Repair, plan, strays

DIGESTS = [f"{number:064x}" for number in range(6)]
A, B, C, D, *_ = DIGESTS


def host(name: str, *held: str, answers: bool = True) -> Host:
    return Host(name, frozenset(held), answers)


def test_a_lost_hosts_copies_are_made_again_where_there_is_least() -> None:
    hosts = [host("", A, B, C), host("h1", A), host("h2")]
    assert plan([A, B, C], hosts, 2) == [Repair(B, "h2"), Repair(C, "h1")]


def test_a_host_that_is_silent_for_a_moment_still_counts() -> None:
    assert plan([A], [host("", A), host("h1", A, answers=False), host("h2")], 2) == []


def test_a_host_of_which_nothing_is_known_yet_is_believed_to_hold_everything() -> None:
    assert plan([A], [host("", A), Host("h1", None, False), host("h2")], 2) == []


def test_what_nobody_who_answers_holds_cannot_be_repaired() -> None:
    assert plan([A], [host(""), host("h1", A, answers=False), host("h2")], 2) == []


def test_more_copies_than_hosts_are_not_asked_for() -> None:
    assert plan([A], [host("", A)], 2) == []


@st.composite
def fleets(draw: st.DrawFn) -> list[Host]:
    count = draw(st.integers(1, 4))
    held = st.frozensets(st.sampled_from(DIGESTS))
    return [Host(f"h{n}", draw(held), n == 0 or draw(st.booleans())) for n in range(count)]


@given(fleets(), st.integers(1, 3))
def test_after_the_repairs_everything_that_can_be_has_its_copies(hosts: list[Host], copies: int) -> None:
    repairs = plan(DIGESTS, hosts, copies)
    for repair in repairs:
        target = next(host for host in hosts if host.name == repair.host)
        assert target.answers
        assert repair.sha256 not in (target.held or ())
    after = {h.name: set(h.held or ()) | {r.sha256 for r in repairs if r.host == h.name} for h in hosts}
    for sha256 in DIGESTS:
        before = [h for h in hosts if sha256 in (h.held or ())]
        now = [name for name, held in after.items() if sha256 in held]
        if any(h.answers for h in before):
            free = sum(1 for h in hosts if h.answers and h not in before)
            assert len(now) >= min(copies, len(before) + free, len(hosts))
        assert len(now) <= max(copies, len(before)), "never more than asked for"


def test_only_what_no_row_mentions_for_long_is_a_stray() -> None:
    assert strays({A: 100.0, B: 10_000.0, C: 10_000.0}, {C}, 3600.0) == [B]

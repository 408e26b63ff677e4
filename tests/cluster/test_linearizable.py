"""The search finds an order when there is one, and none when there is none; hypothesis compares it with brute force."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.linearizable import Step, explain


def test_a_lost_update_has_no_order() -> None:
    steps = [Step("a", 0, 1, "x"), Step("b", 2, 3, "y", expects="x"), Step("c", 4, 5, "z", expects="x")]
    assert explain(steps, "") is None


def test_a_stale_read_has_no_order() -> None:
    assert explain([Step("a", 0, 1, "x"), Step("b", 2, 3, "y"), Step("r", 4, 5, "x", reads=True)], "") is None


def test_an_unknown_write_may_come_later() -> None:
    steps = [Step("a", 0, float("inf"), "x"), Step("r", 1, 2, "", reads=True), Step("s", 3, 4, "x", reads=True)]
    assert explain(steps, "") == ["r", "a", "s"]


def _explained_by_brute_force(steps: list[Step], initial: str) -> bool:
    for order in permutations(steps):
        state: str | None = initial
        for number, step in enumerate(order):
            if any(later.end < step.start for later in order[number + 1 :]):
                break
            state = step.apply(state)
            if state is None:
                break
        else:
            return True
    return False


_STEPS = st.lists(
    st.tuples(
        st.integers(0, 8), st.integers(0, 4), st.sampled_from("xyz"), st.sampled_from([None, "", *"xyz"]), st.booleans()
    ),
    max_size=5,
)


@given(_STEPS)
def test_it_agrees_with_brute_force(drawn: list[tuple[int, int, str, str | None, bool]]) -> None:
    steps = [
        Step(str(number), start, start + length, value, None if reads else expects, reads)
        for number, (start, length, value, expects, reads) in enumerate(drawn)
    ]
    assert (explain(steps, "") is not None) == _explained_by_brute_force(steps, "")

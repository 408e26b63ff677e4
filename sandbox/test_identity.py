"""Every app has a user of its own, builds have others, and nobody gets the kernel's reserved ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.identity import APP_SLOTS, BUILD_SLOTS, uid_for, uid_range

BASES = st.integers(1000, 70_000)


@given(base=BASES, first=st.integers(0, APP_SLOTS - 1), second=st.integers(0, APP_SLOTS - 1))
def test_two_apps_never_share_a_user_until_the_range_wraps(base: int, first: int, second: int) -> None:
    assert (uid_for("app", first, base) == uid_for("app", second, base)) == (first == second)


@given(base=BASES, number=st.integers(0, 10**12))
def test_users_stay_in_their_range_and_are_never_reserved(base: int, number: int) -> None:
    app, build = uid_for("app", number, base), uid_for("build", number, base)
    assert uid_range("app", base)[0] <= app <= uid_range("app", base)[1] < uid_range("build", base)[0]
    assert uid_range("build", base)[0] <= build <= uid_range("build", base)[1]
    worker = uid_for("worker", number, base)
    assert uid_range("build", base)[1] < uid_range("worker", base)[0] <= worker <= uid_range("worker", base)[1]
    assert {app, build, worker}.isdisjoint({65534, 65535})
    assert uid_for("app", number + APP_SLOTS, base) == app
    assert uid_for("build", number + BUILD_SLOTS, base) == build


@pytest.mark.parametrize(("number", "base"), [(-1, 61000), (1, 0), (1, -5)])
def test_nonsense_is_refused(number: int, base: int) -> None:
    with pytest.raises(ValueError, match="no user id"):
        uid_for("app", number, base)

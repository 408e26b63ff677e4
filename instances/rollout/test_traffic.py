"""Who takes requests is one number and two facts about an instance."""

from __future__ import annotations

import pytest

from instances.rollout.traffic import Split


@pytest.mark.parametrize(
    ("percent", "new", "old", "shown"),
    [(0, None, "stable", 0), (1, "canary", "stable", 1), (99, "canary", "stable", 99), (100, "stable", None, 0)],
)
def test_the_rule(percent, new, old, shown):
    split = Split(release_id=2, floor=5, percent=percent)
    assert split.pool_of(2, 5) == new
    assert split.pool_of(2, 9) == new
    assert split.pool_of(1, 9) == old
    assert split.pool_of(2, 4) == old, "made before what is told apart"
    assert split.pool_of(2, None) == old
    assert split.canary_percent == shown

"""Where a volume may appear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instances.volumes import paths
from instances.volumes.states import VOLUME

PARTS = st.lists(st.sampled_from(["data", "srv", "x", "var", "lib"]), min_size=1, max_size=4)


def test_the_table_of_volumes_is_sound() -> None:
    assert VOLUME.faults() == []


@pytest.mark.parametrize("path", ["/data", "/srv/files", "/var/lib/mysql", "/opt/x", "/data/a.b_c-d"])
def test_a_path_of_its_own_will_do(path: str) -> None:
    assert paths.problem(path) is None


@pytest.mark.parametrize(
    "path",
    ["", "/", "data", "/data/", "//data", "/data/../etc", "/data/.", "/app", "/app/data", "/usr/x", "/etc", "/home/app",
     "/proc/1", "/tmp/x", "/var", "/var/lib", "/opt", "/da:ta", "/data\n", "/d" * 101],
)  # fmt: skip
def test_what_belongs_to_the_system_or_is_no_plain_path_will_not(path: str) -> None:
    assert paths.problem(path) is not None


@given(PARTS, PARTS)
def test_no_two_volumes_lie_in_each_other(one: list[str], two: list[str]) -> None:
    first, second = "/" + "/".join(one), "/" + "/".join(two)
    nested = one == two[: len(one)] or two == one[: len(two)]
    if paths.problem(first) is None and paths.problem(second) is None:
        assert (paths.problem(second, [first]) is not None) == nested

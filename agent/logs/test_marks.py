"""A line carries the time at which it was written, however long it waits to be shipped."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.logs import marks
from agent.logs.marks import Marks
from agent.logs.tail import NAMES, Tail


def write(directory: Path, which: int, data: bytes) -> None:
    with (directory / NAMES[which]).open("ab") as file:
        file.write(data)


def test_lines_that_waited_for_the_control_plane_carry_their_own_times_in_order(tmp_path: Path) -> None:
    tail = Tail(tmp_path, 1 << 20)
    write(tmp_path, 0, b"first\n")
    tail.trim(100)
    write(tmp_path, 1, "zweite: größer\n".encode())
    tail.trim(200)
    write(tmp_path, 0, b"third\nfourth\n")
    tail.trim(300)
    shipped = tail.batch(9_000, 10)
    assert shipped == [[100, 0, "first"], [200, 1, "zweite: größer"], [300, 0, "third"], [300, 0, "fourth"]]
    tail.trim(9_500)
    assert tail.batch(9_999, 10) == shipped, "what is sent again is the same"


def test_a_stream_that_lags_behind_the_other_does_not_go_back_in_time(tmp_path: Path) -> None:
    tail = Tail(tmp_path, 1 << 20)
    write(tmp_path, 0, b"a\nb\n")
    tail.trim(100)
    write(tmp_path, 1, b"c\n")
    tail.trim(200)
    tail.acknowledge(len(tail.batch(1_000, 1)), 2)  # a of the one, c of the other
    assert tail.batch(1_000, 1) == [[200, 0, "b"]]


def test_nobody_looked_so_now_is_all_that_is_known(tmp_path: Path) -> None:
    write(tmp_path, 0, b"old\n")
    assert Tail(tmp_path, 1 << 20).batch(500, 10) == [[500, 0, "old"]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 40))
def test_no_time_is_earlier_than_the_line_and_all_ascend(counts: list[int], forgotten: int) -> None:
    known, size, written = Marks(), 0, []
    for look, count in enumerate(counts):
        written += [look] * count
        size += count * 3
        known.note(size, look)
    start = min(forgotten, len(written)) * 3
    known.forget(start, 0)
    times = known.times(start, size, ["ab"] * (len(written) - start // 3), 99)
    assert times == written[start // 3 :]


def test_what_is_remembered_is_bounded_and_gets_later_never_earlier() -> None:
    known = Marks()
    for look in range(10_000):
        known.note((look + 1) * 3, look)
        known.forget(0, 300)
    assert len(known._places) <= marks.MOST + 1
    times = known.times(0, 30_000, ["ab"] * 10_000, 99_999)
    assert times == sorted(times)
    assert all(time >= line for line, time in enumerate(times))
    assert times[:100] == list(range(100)), "what is on its way keeps its times"

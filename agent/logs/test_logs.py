"""Rules of the log path: no line lost, none twice, whatever is interrupted, and never more on disk than allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.logs import bucket, hole, lines
from agent.logs.tail import NAMES, Tail

pytestmark = pytest.mark.slow  # all of them together are: ./test.sh fast goes without

ANY_PATH = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(st.binary(max_size=4000), st.integers(1, 50))
def test_cutting_anywhere_gives_the_same_lines_as_not_cutting(data: bytes, most: int):
    data += b"\n"
    found: list[str] = []
    rest = data
    while rest:
        end = lines.whole(rest, most)
        assert 0 < end <= len(rest)
        cut = lines.split(rest[:end])
        assert len(cut) <= most
        found += cut
        rest = rest[end:]
    assert found == lines.split(data)


@given(st.text(max_size=300), st.integers(1, 400))
def test_endless_lines_are_cut_within_the_limit_and_between_characters(text: str, times: int):
    data = text.encode() * times
    pieces, rest = [], data
    while end := lines.whole(rest, 10):
        pieces += lines.split(rest[:end])
        rest = rest[end:]
    pieces += lines.split(rest)
    assert all(len(piece.encode()) <= lines.LINE_MAX for piece in pieces)
    if not set(text) & {"\n", "\r", "\0"}:
        assert "".join(pieces) == text * times


def test_invalid_bytes_are_replaced_and_nothing_else_is_touched():
    assert lines.split(b"a\xffb\r\n\nnul\0\n") == ["a\ufffdb", "", "nul\ufffd"]


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 5000)), max_size=50))
def test_a_bucket_never_gives_more_than_its_size_and_rate_plus_one_batch(steps: list[tuple[float, int]]):
    now, taken, biggest = 0.0, 0, 0
    tank = bucket.full(rate=100, size=1000, now=now)
    for pause, wish in steps:
        now += pause
        tank = tank.filled(now)
        if tank.tokens > 0:
            tank = tank.taken(wish)
            taken += wish
            biggest = max(biggest, wish)
        assert taken <= 1000 + 100 * now + biggest + 1e-6


class Receiver:
    """Stores by sequence as the control plane does; loses answers on demand."""

    def __init__(self) -> None:
        self.held = 0
        self.lines: list[tuple[int, str]] = []

    def take(self, first: int, rows: list[list[object]]) -> int:
        assert first <= self.held + 1, "a gap"
        self.lines += [(int(str(row[1])), str(row[2])) for row in rows[self.held - first + 1 :]]
        self.held = max(self.held, first + len(rows) - 1)
        return self.held


def write(directory: Path, which: int, data: bytes) -> None:
    with (directory / NAMES[which]).open("ab") as file:
        file.write(data)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 1), st.binary(max_size=30)),
        st.tuples(st.just("ship"), st.booleans(), st.integers(1, 5)),
        st.tuples(st.just("die"), st.booleans(), st.integers(1, 5)),
    ),
    max_size=40,
)


@ANY_PATH
@given(STEPS)
def test_no_line_is_lost_or_comes_twice_whatever_is_interrupted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, object]]
):
    directory = tmp_path_factory.mktemp("tail")
    receiver, written = Receiver(), [b"", b""]
    tail = Tail(directory, 1 << 20)
    for name, flag, value in steps:
        if name == "write" and isinstance(value, bytes):
            write(directory, flag, value)
            written[flag] += value
            continue
        assert isinstance(value, int)
        rows = tail.batch(1, value)
        if rows and flag:  # it arrives; when the agent dies now, it never hears of it
            acked = receiver.take(tail.seq, rows)
            if name == "ship":
                tail.acknowledge(len(rows), acked)
        if name == "die":
            tail.close()
            tail = Tail(directory, 1 << 20)
    tail.finish_line()
    while tail.waiting():
        rows = tail.batch(1, 5)
        tail.acknowledge(len(rows), receiver.take(tail.seq, rows) if rows else tail.seq - 1)
    for which in (0, 1):
        data = written[which]
        expected = lines.split(data if not data or data.endswith(b"\n") else data + b"\n")
        assert [text for stream, text in receiver.lines if stream == which] == expected
    tail.close()


def test_a_receiver_that_lost_its_store_gets_what_is_in_flight_under_its_own_numbers(tmp_path: Path):
    write(tmp_path, 0, b"a\nb\n")
    tail = Tail(tmp_path, 1 << 20)
    tail.acknowledge(len(tail.batch(1, 10)), 2)
    write(tmp_path, 0, b"c\n")
    rows = tail.batch(1, 10)
    assert tail.seq == 3
    tail.acknowledge(len(rows), 0)
    assert tail.seq == 1
    assert tail.batch(1, 10) == rows


def test_more_than_is_kept_drops_the_oldest_lines_and_counts_every_one(tmp_path: Path):
    total = 200_000
    write(tmp_path, 0, b"".join(b"line %d\n" % number for number in range(total)))
    tail = Tail(tmp_path, 1 << 20)
    tail.trim(1)
    found: list[str] = []
    while rows := tail.batch(1, 1000):
        found += [str(row[2]) for row in rows]
        tail.acknowledge(len(rows), tail.seq + len(rows) - 1)
    dropped = int(found[0].split()[1])
    assert found[0] == lines.NOTE.format(dropped)
    assert found[1:] == [f"line {number}" for number in range(dropped, total)]
    assert sum(len(text) + 1 for text in found[1:]) <= 1 << 19


def test_space_of_acknowledged_output_comes_back_while_the_file_is_being_written(tmp_path: Path):
    tail = Tail(tmp_path, 64 << 20)
    seq = 0
    for _ in range(20):
        write(tmp_path, 0, (b"x" * 99 + b"\n") * 5000)
        while rows := tail.batch(1, 5000):
            seq += len(rows)
            tail.acknowledge(len(rows), seq)
    held = (tmp_path / NAMES[0]).stat()
    assert seq == 100_000
    assert held.st_size == 10_000_000
    assert held.st_blocks * 512 < 2_500_000
    assert tail.evidence((0, 0)) == ["x" * 99] * 50


def test_without_holes_nothing_is_lost_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(hole._state, "works", False)
    tail = Tail(tmp_path, 64 << 20)
    write(tmp_path, 0, b"y\n" * 1_000_000)
    seq = 0
    while rows := tail.batch(1, 100_000):
        seq += len(rows)
        tail.acknowledge(len(rows), seq)
    assert seq == 1_000_000
    tail.start_over()
    assert (tmp_path / NAMES[0]).stat().st_size == 0


def test_evidence_is_of_this_process_only_and_prefers_what_went_wrong(tmp_path: Path):
    write(tmp_path, 0, b"old\n" * 100)
    tail = Tail(tmp_path, 1 << 20)
    since = tail.sizes()
    write(tmp_path, 0, b"".join(b"out %d\n" % number for number in range(100)))
    write(tmp_path, 1, b"".join(b"err %d\n" % number for number in range(30)))
    found = tail.evidence(since)
    assert len(found) == 50
    assert found[-30:] == [f"err {number}" for number in range(30)]
    assert found[:20] == [f"out {number}" for number in range(80, 100)]


def test_a_program_that_empties_its_own_log_does_not_stop_it(tmp_path: Path):
    tail = Tail(tmp_path, 1 << 20)
    write(tmp_path, 0, b"a\n" * 15)
    tail.acknowledge(len(rows := tail.batch(1, 100)), len(rows))
    with (tmp_path / NAMES[0]).open("r+b") as file:
        file.truncate(0)
    write(tmp_path, 0, b"b\n")
    assert [row[2] for row in tail.batch(1, 100)] == ["b"]

"""Counting: every line once, in its window, at its instance; across rotations and restarts of the reader."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ingress.accesslog import AccessLog, Position
from agent.ingress.counting import RequestCounting
from agent.ingress.counts import Counter
from agent.ingress.follow import Members
from agent.routing import LATENCY_BUCKETS_MS

entries = st.tuples(
    st.floats(1e9, 1e9 + 100), st.integers(0, 3), st.integers(1, 3), st.integers(100, 599), st.floats(0, 20000)
)


def line(ts: float, instance: int, app: int, status: int, ms: float | None) -> bytes:
    head = f"i{instance}-{app}" if instance else f"p{app}"
    upstream = f"{head}.7f000001.omni.:2000{instance}"
    return orjson.dumps({"ts": ts, "duration": 0.5, "size": 1, "status": status, "ms": ms, "upstream": upstream})


@given(st.lists(entries))
def test_nothing_is_lost_or_counted_twice(lines: list[tuple[float, int, int, int, float]]) -> None:
    counter = Counter(10.0)
    for entry in lines:
        counter.add(line(*entry))
    rows = counter.close(2e9)
    assert counter.close(3e9) == []
    assert sum(row.requests for row in rows) == len(lines)
    assert sum(row.failed for row in rows) == sum(1 for entry in lines if entry[3] >= 500)
    for row in rows:
        assert len(row.histogram) == len(LATENCY_BUCKETS_MS) + 1
        assert sum(row.histogram) == row.requests
    keys = [(row.at_us, row.app_id, row.instance_id) for row in rows]
    assert keys == sorted(set(keys))


def test_only_windows_that_have_ended_are_closed() -> None:
    counter = Counter(10.0)
    for ts in (100.0, 109.9, 110.0):
        counter.add(line(ts, 1, 1, 200, 3.0))
    assert counter.close(110.5) == []
    (row,) = counter.close(111.1)
    assert (row.requests, row.at_us, row.window_s) == (2, 110_000_000, 10.0)
    assert row.histogram[LATENCY_BUCKETS_MS.index(3)] == 2, "an upper bound belongs to its bucket"


def test_what_was_tried_elsewhere_before_is_counted_where_it_was_answered() -> None:
    counter = Counter(10.0)
    for retries in (0, 2, 1):
        counter.add(orjson.dumps({**orjson.loads(line(100.0, 1, 1, 200, 3.0)), "retries": retries}))
    (row,) = counter.close(200.0)
    assert (row.requests, row.retried, row.failed) == (3, 2, 0)


@pytest.mark.parametrize(
    "rubbish",
    [
        b'{"ts":1,"duration":3.0,"status":503,"ms":null,"upstream":null}',
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"ts":1}',
        line(1.0, 0, 0, 404, 1.0),
        b'{"ts":1,"status":404,"duration":1}',
    ],
)
def test_lines_of_no_app_count_nowhere(rubbish: bytes) -> None:
    counter = Counter(10.0)
    counter.add(rubbish)
    assert counter.close(1e12) == []


def test_without_a_first_byte_the_whole_duration_counts() -> None:
    counter = Counter(10.0)
    counter.add(line(1.0, 1, 1, 502, None))
    (row,) = counter.close(100.0)
    assert row.histogram[LATENCY_BUCKETS_MS.index(500)] == 1


def read_all(log: AccessLog) -> list[bytes]:
    return [one for lines in log.read() for one in lines]


def rotate(path: Path, number: int) -> None:
    path.rename(path.with_name(f"access-2026-11-22T10-00-0{number}.000-size.log"))


@pytest.mark.slow
@given(st.lists(st.sampled_from(["write", "half", "rotate", "read", "reopen"]), max_size=30))
def test_every_line_is_read_once_whatever_happens_between(tmp_path_factory, steps: list[str]) -> None:
    path = tmp_path_factory.mktemp("log") / "access.log"
    log, written, read, rotations, rest = AccessLog(path), 0, [], 0, b""
    for step in [*steps, "write", "read"]:
        if step in ("write", "half"):
            with path.open("ab") as out:
                out.write(rest)
                rest = b""
                text = b"line %d\n" % written
                written += 1
                cut = len(text) if step == "write" else 3
                out.write(text[:cut])
                rest = text[cut:]
        elif step == "rotate" and path.exists() and not rest and rotations < 9:
            rotations += 1
            rotate(path, rotations)
            path.touch()
        elif step == "read":
            read += read_all(log)
        elif step == "reopen":
            log.close()
            log = AccessLog(path, log.position)
    assert read == [b"line %d" % i for i in range(written)]
    log.close()


def test_a_file_that_is_gone_is_followed_by_the_oldest_left(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"c\n")
    (tmp_path / "access-2026-11-22T10-00-01.000-size.log").write_bytes(b"b\n")
    assert read_all(AccessLog(path, Position(Path("/").stat().st_ino, 7))) == [b"b", b"c"]


def test_rows_wait_for_the_control_plane_and_survive_a_kill(tmp_path: Path) -> None:
    taken: list[int] = []
    up = False

    def control(request: httpx.Request) -> httpx.Response:
        if not up:
            raise httpx.ConnectError("down")
        taken.extend(row["requests"] for row in orjson.loads(request.content)["rows"])
        return httpx.Response(200, json={})

    def counting(client: httpx.AsyncClient) -> RequestCounting:
        members = Members(("http://a", "http://b"))
        return RequestCounting(client, members, "n", tmp_path / "access.log", tmp_path / "counting.json", 10.0)

    async def scenario() -> None:
        nonlocal up
        async with httpx.AsyncClient(transport=httpx.MockTransport(control)) as client:
            path = tmp_path / "access.log"
            path.write_bytes(line(100.0, 1, 1, 200, 1.0) + b"\n" + line(111.0, 1, 1, 200, 1.0) + b"\n")
            first = counting(client)
            await first.read()
            await first.collect(112.0)  # the first window is pending, the second open, both on disk
            with path.open("ab") as out:
                out.write(line(112.0, 1, 1, 200, 1.0) + b"\n")
            up = True
            second = counting(client)
            await second.read()
            await second.collect(200.0)
            assert taken == [1, 2]
            third = counting(client)
            await third.read()
            await third.collect(300.0)
            assert taken == [1, 2]

    asyncio.run(scenario())


def test_rows_keep_their_numbers_over_a_kill_before_the_answer_was_noted(tmp_path: Path) -> None:
    posted: list[tuple[str, int, list[int]]] = []
    state = tmp_path / "counting.json"
    as_sent = b""

    def control(request: httpx.Request) -> httpx.Response:
        nonlocal as_sent
        as_sent = state.read_bytes()
        body = orjson.loads(request.content)
        posted.append((body["source"], body["first_seq"], [row["requests"] for row in body["rows"]]))
        return httpx.Response(200, json={})

    def counting(client: httpx.AsyncClient) -> RequestCounting:
        members = Members(("http://a",))
        return RequestCounting(client, members, "n", tmp_path / "access.log", state, 10.0)

    async def scenario() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(control)) as client:
            path = tmp_path / "access.log"
            path.write_bytes(line(100.0, 1, 1, 200, 1.0) + b"\n")
            first = counting(client)
            await first.read()
            await first.collect(111.1)
            with path.open("ab") as out:
                out.write(line(115.0, 1, 1, 200, 1.0) + b"\n" + line(116.0, 1, 1, 200, 1.0) + b"\n")
            await first.read()
            await first.collect(130.0)
            state.write_bytes(as_sent)  # killed: sent, but not noted
            second = counting(client)
            await second.read()
            await second.collect(130.0)

    asyncio.run(scenario())
    source = posted[0][0]
    assert posted == [(source, 1, [1]), (source, 2, [2]), (source, 2, [2])]

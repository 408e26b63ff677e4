"""Rules of talking to the control plane: the wire, the choice of member, reports, packages; no processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agent import record, store, sync
from agent.control import ControlPlane, NoAnswer, Rejected
from agent.fake_plane import FakePlane, assignment
from agent.packages import Images, Packages
from agent.protocol import Observed, ReleaseRef
from agent.runtimes.base import Refused, Unavailable
from agent.store import Store
from agent.sync import Reporter
from agent.wire import Request, WireError, fetch

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answered(raw: bytes, pause: float = 0.0) -> tuple[int, bytes] | str:
    """What the client makes of these bytes."""

    async def story() -> tuple[int, bytes] | str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for byte in (raw[i : i + 7] for i in range(0, len(raw), 7)):
                writer.write(byte)
                await writer.drain()
            await asyncio.sleep(pause)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            answer = await fetch(Request("GET", f"http://127.0.0.1:{port}/x?y"), 0.5, limit=1000)
            return answer.status, answer.body
        except WireError as error:
            return str(error)
        finally:
            server.close()

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", (404, b"")),
        (
            b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n",
            (200, b"abcde"),
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", (200, b"until the end")),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    ],
)
def test_every_way_of_framing_an_answer_is_read(raw: bytes, expected: tuple[int, bytes]):
    assert answered(raw) == expected


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nabc", "broke off"),
        (b"SSH-2.0-x\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000, "more than 1000"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "invalid literal"),
        (b"", "bytes read"),
    ],
)
def test_half_an_answer_is_no_answer(raw: bytes, said: str):
    assert said in str(answered(raw))


def test_one_deadline_covers_an_answer_that_trickles():
    assert "within 0.5 s" in str(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nabc", pause=5))


def test_a_line_break_never_gets_into_a_header():
    request = Request("GET", "http://127.0.0.1:1/x", {"A": "b\r\nC: d"})
    with pytest.raises(WireError):
        asyncio.run(fetch(request, 1.0))


def test_another_member_answers_and_the_own_is_asked_again_later(plane: FakePlane):
    async def story() -> None:
        now = 100.0
        other = FakePlane()
        plane.down = True
        control = ControlPlane([plane.url, other.url], "t", lambda: now)
        await control.get("/agent/assignments?index=0&wait=0", 2.0)
        assert control.current == other.url
        plane.down = False
        await control.get("/agent/assignments?index=0&wait=0", 2.0)
        assert control.current == other.url
        now += 11
        await control.get("/agent/assignments?index=0&wait=0", 2.0)
        assert control.current == plane.url
        other.close()

    asyncio.run(story())


def test_no_and_no_answer_are_told_apart(plane: FakePlane):
    control = ControlPlane([plane.url], "t")
    with pytest.raises(Rejected):
        asyncio.run(control.get("/nothing", 2.0))
    plane.down = True
    with pytest.raises(NoAnswer):
        asyncio.run(control.get("/agent/assignments?index=0&wait=0", 2.0))


def test_a_change_during_a_report_is_told_by_the_next(plane: FakePlane):
    async def story() -> None:
        reporter = Reporter(plane.node, 1, ControlPlane([plane.url], "t"), 1.0)
        reporter.changed(Observed(1, 1, "starting"))
        sending = asyncio.create_task(reporter.send())
        await asyncio.sleep(0)
        reporter.changed(Observed(1, 2, "running"))
        await sending
        await reporter.send()
        assert [each.seq for each in plane.history[1]] == [1, 2]
        await reporter.send()
        assert len(plane.history[1]) == 2

    asyncio.run(story())


def test_reports_are_fewer_only_while_many_start_at_once(plane: FakePlane):
    reporter = Reporter(plane.node, 1, ControlPlane([plane.url], "t"), 1.0)
    for number in range(sync.MANY + 2):
        assert not reporter.many_start or number > sync.MANY
        reporter.changed(Observed(number, 1, "starting"))
    assert reporter.many_start
    reporter.changed(Observed(0, 2, "running"))
    assert reporter.many_start
    reporter.gone(1)
    assert not reporter.many_start


def test_the_list_is_read_less_often_only_while_many_start_at_once(plane: FakePlane, monkeypatch: pytest.MonkeyPatch):
    """A list after each of their reports would say again what every instance is to do."""
    monkeypatch.setattr(sync, "LIST_MANY_S", 3600.0)
    many = [True]
    reads: list[float] = []

    class Reading(sync.Assigner):
        async def read(self, supervisor: Any, wait: float) -> None:
            reads.append(wait)
            await asyncio.sleep(0)

    async def story() -> None:
        control = ControlPlane([plane.url], "t")
        reading = asyncio.create_task(Reading(control, 5.0, lambda: many[0]).run(None))  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0)
        assert reads == [0.0]  # it rests
        reading.cancel()
        many[0] = False
        reading = asyncio.create_task(Reading(control, 5.0, lambda: many[0]).run(None))  # type: ignore[arg-type]
        while len(reads) < 4:
            await asyncio.sleep(0)
        reading.cancel()

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_report_that_got_no_answer_is_told_again(plane: FakePlane):
    async def story() -> None:
        reporter = Reporter(plane.node, 1, ControlPlane([plane.url], "t"), 1.0)
        reporter.changed(Observed(1, 1, "starting"))
        reporter.gone(2)
        plane.down = True
        with pytest.raises(NoAnswer):
            await reporter.send()
        plane.down = False
        await reporter.send()
        assert plane.observed[1].status == "starting"
        assert plane.gone == {2}

    asyncio.run(story())


def packages(plane: FakePlane, directory: Path, node: str = "n") -> Packages:
    return Packages(Store(node, directory / "instances", directory / node), ControlPlane([plane.url], "t"))


def test_agents_of_one_host_fetch_a_package_once(plane: FakePlane, tmp_path: Path):
    async def story() -> None:
        release = plane.release({"a/b": b"x"})
        agents = [packages(plane, tmp_path, f"n{number}") for number in range(4)]
        trees = await asyncio.gather(*(each.ensure(release) for each in agents))
        assert set(trees) == {tmp_path / "instances" / "trees" / release.package}
        assert (trees[0] / "a" / "b").read_bytes() == b"x"
        del plane.packages[release.package]
        await agents[0].ensure(release)

    asyncio.run(story())


def test_many_that_start_at_once_ask_for_an_image_that_is_there_side_by_side(plane: FakePlane, tmp_path: Path):
    """One after the other, each behind a tenth of a second of waiting, fifty took five seconds."""

    class Together:
        def __init__(self) -> None:
            self.all = asyncio.Barrier(6)

        async def has(self, _digest: str) -> bool:
            async with asyncio.timeout(60):
                await self.all.wait()
            return True

    async def story() -> None:
        agent = Store("n", tmp_path / "instances", tmp_path / "n")
        mine = Packages(agent, ControlPlane([plane.url], "t"), cast(Images, Together()))
        release = ReleaseRef(1, "1", "0" * 64, 1, kind="image")
        mine.path(release.package).mkdir()
        assert set(await asyncio.gather(*(mine.ensure(release) for _ in range(6)))) == {mine.path(release.package)}

    asyncio.run(story())


def test_what_is_no_package_is_refused_and_what_is_missing_is_awaited(plane: FakePlane, tmp_path: Path):
    async def story() -> None:
        mine = packages(plane, tmp_path)
        with pytest.raises(Refused):
            await mine.ensure(ReleaseRef(1, "1", "../../etc", 3))
        with pytest.raises(Unavailable):
            await mine.ensure(ReleaseRef(1, "1", "0" * 64, 3))
        import hashlib

        junk = b"not a tar" * 100
        digest = hashlib.sha256(junk).hexdigest()
        plane.packages[digest] = junk
        with pytest.raises(Refused):
            await mine.ensure(ReleaseRef(1, "1", digest, len(junk)))
        left = [
            entry.name for entry in (tmp_path / "instances" / "trees").iterdir() if not entry.name.endswith(".lock")
        ]
        assert left == []

    asyncio.run(story())


def test_a_tree_goes_only_when_no_agent_of_the_host_refers_to_it(plane: FakePlane, tmp_path: Path):
    async def story() -> None:
        used, unused = plane.release({"f": b"1"}), plane.release({"f": b"2"})
        mine = packages(plane, tmp_path, "n1")
        await mine.ensure(used)
        await mine.ensure(unused)
        other = Store("n2", tmp_path / "instances", tmp_path / "n2")
        other.save(record.new("n2", "boot", assignment(5, used, "x")))
        assert await mine.collect() == [unused.package]
        (other.directory(5) / store.RECORD).write_text("{")  # unreadable: nobody knows, nothing goes
        assert await mine.collect() == []
        other.delete(5)
        assert await mine.collect() == [used.package]

    asyncio.run(story())


def test_records_belong_to_their_node_and_survive_a_damaged_neighbour(tmp_path: Path):
    one = Store("n1", tmp_path / "instances", tmp_path / "n1")
    two = Store("n2", tmp_path / "instances", tmp_path / "n2")
    release = ReleaseRef(1, "1", "0" * 64, 1)
    one.save(record.new("n1", "b", assignment(1, release, "x", env={"A": "b"})))
    two.save(record.new("n2", "b", assignment(2, release, "x")))
    one.directory(3).mkdir()
    (one.directory(3) / store.RECORD).write_text("half a rec")
    assert [each.id for each in one.load()] == [1]
    assert one.load()[0].assignment.env == {"A": "b"}
    assert [each.id for each in two.load()] == [2]


def test_one_assignment_that_cannot_be_read_does_not_stop_the_others():
    from agent.plain import to_json
    from agent.sync import readable

    good = to_json(assignment(1, ReleaseRef(1, "1", "0" * 64, 1), "x"))
    answer = {"cluster_id": "c", "epoch": 1, "index": 2, "node": "n", "instances": [good, {**good, "id": 2, "env": 3}]}
    wanted, unreadable = readable(answer)
    assert [each.id for each in wanted.instances] == [1]
    assert list(unreadable) == [2]
    with pytest.raises(ValueError, match="instances"):
        readable({"cluster_id": "c"})


def test_an_incarnation_is_greater_than_the_last_whatever_the_clock_says(tmp_path: Path):
    mine = Store("n", tmp_path / "instances", tmp_path / "n")
    store.write_atomically(tmp_path / "n" / "incarnation.json", 2**62)
    assert mine.incarnation() == 2**62 + 1
    assert mine.incarnation() == 2**62 + 2


async def _chunks(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def sent_in_chunks(parts: list[bytes], answer: bytes, early: bool = False) -> tuple[object, bytes]:
    """What came of an upload, and what the server had read. `early`: it answers the head, and reads no more."""

    async def story() -> tuple[object, bytes]:
        read = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            read.extend(await reader.readuntil(b"\r\n\r\n"))
            while not early and not read.endswith(b"\r\n0\r\n\r\n"):
                read.extend(await reader.read(65536))
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        control = ControlPlane([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], "t")
        try:
            return await control.upload("/x", "application/gzip", 5.0, lambda: _chunks(parts)), bytes(read)
        except (NoAnswer, Rejected) as error:
            return error, bytes(read)
        finally:
            server.close()

    return asyncio.run(story())


def test_a_body_of_unknown_length_goes_out_in_chunks():
    answer = b'HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{"a":1}'
    said, read = sent_in_chunks([b"abc", b"", b"d" * 20], answer)
    head, _, body = read.partition(b"\r\n\r\n")
    assert said == {"a": 1}
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == b"3\r\nabc\r\n14\r\n" + b"d" * 20 + b"\r\n0\r\n\r\n"


def test_a_refusal_before_the_body_has_gone_out_is_heard():
    answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno"
    said, _ = sent_in_chunks([b"x" * 1_000_000] * 20, answer, early=True)
    assert isinstance(said, (Rejected, NoAnswer))  # a reset may overtake what was said
    if isinstance(said, Rejected):
        assert said.status == 409

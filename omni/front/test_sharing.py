"""Many followers, one reading: nothing missed, nothing twice, and whoever may not read on stops alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest

from omni.front import following, sharing
from omni.front.following import Following
from omni.front.requests import Answer, Request
from omni.front.sharing import Channel, Hub, Listener, order
from omni.front.test_front import request

NAME = "events 0 ff"


class Record:
    """A made-up list endpoint: numbered items, pages of a few."""

    def __init__(self) -> None:
        self.count, self.asked, self.page_size = 0, 0, 7
        self.refused: set[str] = set()
        self.away = False

    async def ask(self, sent: Request) -> Answer:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            return Answer(503, [], b'{"code":"database_unavailable"}')
        if sent.headers.get("authorization") in self.refused:
            return Answer(401, [], b'{"code":"unauthenticated"}')
        at = order(dict(pair.split("=") for pair in sent.query.split("&")).get("cursor", "0.0"))[0]
        items = [{"id": f"{n}.0"} for n in range(at + 1, min(self.count, at + self.page_size) + 1)]
        seen = items[-1]["id"] if items else f"{at}.0"
        more = int(seen.split(".")[0]) < self.count
        body = {"items": items, "next": "/events?more" if more else None, "seen": seen}
        return Answer(200, [("Omni-Stream", NAME)], orjson.dumps(body))

    async def newest(self, _kind: str, ids: list[int]) -> dict[int, int]:
        if self.away:
            raise OSError("away")
        return dict.fromkeys(ids, self.count)


async def follow(streams: Following, who: str, cursor: int, until: int, pause: float = 0.0) -> list[int]:
    """The numbers that this follower got, in order."""
    answer = await streams.stream(request(path="/events", query=f"cursor={cursor}.0", authorization=who,
                                          accept="text/event-stream"))  # fmt: skip
    assert answer.stream is not None
    got: list[int] = []
    async for chunk in answer.stream:
        got += [int(orjson.loads(line[6:])["id"].split(".")[0]) for line in chunk.splitlines()
                if line.startswith(b"data: {\"id\"")]  # fmt: skip
        if b"event: problem" in chunk or (got and got[-1] >= until):
            break
        await asyncio.sleep(pause)
    await answer.stream.aclose()  # type: ignore[attr-defined]
    return got


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(3))
def test_followers_that_come_whenever_and_read_as_slowly_as_they_like_miss_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "RING_ITEMS", 20)  # so that the slow ones fall out of it
    monkeypatch.setattr(sharing, "LOOK_S", 0.002)
    dice = random.Random(seed)  # noqa: S311

    async def story() -> None:
        record = Record()
        streams = Following(record.ask, Hub(record.newest))

        async def one(number: int) -> None:
            await asyncio.sleep(dice.random() * 0.2)
            start = dice.randint(0, record.count)
            got = await follow(streams, f"t{number}", start, 300, dice.choice([0, 0, 0.01]))
            assert got == list(range(start + 1, 301))

        async def write() -> None:
            while record.count < 300:
                record.count += dice.randint(1, 9) if record.count < 290 else 1
                await asyncio.sleep(0.003)

        record_to_300 = asyncio.create_task(write())
        await asyncio.gather(*(one(number) for number in range(12)))
        await record_to_300
        record.count = 300
        assert not streams.hub._channels

    run(story)


def test_a_hundred_followers_cost_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LOOK_S", 0.005)

    async def story() -> None:
        record = Record()
        record.count = 1
        streams = Following(record.ask, Hub(record.newest))
        followers = [asyncio.create_task(follow(streams, "t", 0, 5)) for _ in range(100)]
        while record.asked < 101:
            await asyncio.sleep(0.01)
        asked = record.asked
        for _ in range(4):
            record.count += 1
            await asyncio.sleep(0.05)
        assert {tuple(got) for got in await asyncio.gather(*followers)} == {(1, 2, 3, 4, 5)}
        assert record.asked - asked <= 10

    run(story)


def test_a_follower_whose_right_was_taken_away_is_told_and_the_others_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LOOK_S", 0.005)
    monkeypatch.setattr(following, "_RIGHTS_S", 0.05)
    monkeypatch.setattr(following, "_HEARTBEAT_S", 0.02)

    async def story() -> None:
        record = Record()
        streams = Following(record.ask, Hub(record.newest))
        bad = asyncio.create_task(follow(streams, "bad", 0, 3))
        good = asyncio.create_task(follow(streams, "good", 0, 3))
        await asyncio.sleep(0.03)
        record.refused.add("bad")
        assert await bad == []
        record.count = 3
        assert await good == [1, 2, 3]

    run(story)


def test_a_database_that_is_away_closes_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LOOK_S", 0.005)
    monkeypatch.setattr(sharing, "_AFTER_FAILURE_S", 0.02)
    monkeypatch.setattr(following, "_UNAVAILABLE_S", 0.02)
    monkeypatch.setattr(following, "_RIGHTS_S", 0.02)
    monkeypatch.setattr(following, "_HEARTBEAT_S", 0.01)

    async def story() -> None:
        record = Record()
        streams = Following(record.ask, Hub(record.newest))
        one = asyncio.create_task(follow(streams, "t", 0, 4))
        await asyncio.sleep(0.05)
        record.away, record.count = True, 4
        await asyncio.sleep(0.1)
        assert not one.done()
        record.away = False
        assert await one == [1, 2, 3, 4]

    run(story)


def test_positions_compare_by_what_is_ordered_in_them() -> None:
    assert order("12.3") < order("12.10") < order("100.0")
    assert order("a5.9") < order("a6.1")
    assert order("999.7.3") < order("5.7.4"), "a clock that was put back does not hide an instance's lines"
    assert order("") < order("0.0")


def test_a_channel_that_nobody_may_read_stops_reading() -> None:
    async def refuse(_at: str) -> Answer:
        return Answer(403, [], b"{}")

    async def story() -> None:
        channel = Channel("events", 0, "0.0", (0, 0), listeners=[Listener(refuse), Listener(refuse)])
        both = list(channel.listeners)
        await channel.pull()
        assert channel.listeners == []
        assert all(listener.refusal is not None for listener in both)

    run(story)


def test_a_stream_that_its_client_left_holds_nothing() -> None:
    left: list[str] = []

    async def stream() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            left.append("left")

    async def gone(_message: dict[str, Any]) -> None:
        if _message["type"] == "http.response.body":
            raise ConnectionResetError

    async def story() -> None:
        with pytest.raises(ConnectionResetError):
            await Answer(200, [], stream=stream()).send(gone)
        assert left == ["left"]

    run(story)

"""The front's rules, with a made-up Django behind it: the waiting, the streams, the bodies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from omni.front.django_threads import DjangoThreads
from omni.front.following import Following
from omni.front.requests import Answer, Request
from omni.front.sharing import Hub
from omni.front.watching import IndexWatch, Watching
from omni.kernel.errors import InvalidInput, Malformed


def request(
    method: str = "GET",
    path: str = "/x",
    query: str = "",
    body: list[bytes] | None = None,
    gone: bool = False,
    **headers: str,
) -> Request:
    parts = list(body or [])

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts) or gone}
        return {"type": "http.disconnect"}

    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, path, query, names, "10.0.0.9", "http", ("127.0.0.1", 8000), receive)


@pytest.mark.parametrize("path", ["/app/a\0", "/app/a\n/stop", "/app/../orgs", "/app/./x", "/app/a\u202e"])
def test_a_path_that_another_program_would_read_differently_has_no_route(path: str) -> None:
    assert not request("POST", path).is_routable
    assert request("POST", "/app/web/release/1..2/upload").is_routable


# -- waiting


class Shown:
    """A made-up view: shows `body` as of `index`."""

    def __init__(self) -> None:
        self.index, self.body, self.asked = 5, b"{}", 0

    async def ask(self, _request: Request) -> Answer:
        self.asked += 1
        return Answer(200, [("Omni-Index", str(self.index))], self.body)

    async def read_index(self) -> int:
        return self.index


def watching(shown: Shown) -> Watching:
    return Watching(IndexWatch(shown.read_index), 60.0, 0.3)


def test_a_waiting_read_answers_when_what_it_shows_has_changed() -> None:
    async def story() -> None:
        shown = Shown()
        waiting = watching(shown)
        first = await waiting.read(request(query="index=0&wait=0"), shown.ask)
        assert first.body == b"{}"
        task = asyncio.create_task(waiting.read(request(query="index=5&wait=30"), shown.ask))
        await asyncio.sleep(0.15)
        shown.index = 6  # something else changed
        await asyncio.sleep(0.3)
        assert not task.done()
        shown.index, shown.body = 7, b'{"new":1}'
        assert (await asyncio.wait_for(task, 5)).body == b'{"new":1}'

    asyncio.run(story())


def test_a_reader_that_missed_changes_of_others_only_keeps_waiting() -> None:
    async def story() -> None:
        shown = Shown()
        waiting = watching(shown)
        await waiting.read(request(query="index=0&wait=0"), shown.ask)
        shown.index = 50  # nothing of what it shows
        task = asyncio.create_task(waiting.read(request(query="index=5&wait=30"), shown.ask))
        await asyncio.sleep(0.3)
        assert not task.done()
        task.cancel()

    asyncio.run(story())


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 30, "\u0663"])
def test_an_index_that_is_no_number_is_refused(value: str) -> None:
    shown = Shown()
    with pytest.raises(InvalidInput):
        asyncio.run(watching(shown).read(request(query=f"index={value}&wait=1"), shown.ask))


@pytest.mark.parametrize(("value", "valid"), [("0.2", True), ("0", True), ("25.0", True), ("x", False), ("-1", False)])
def test_how_long_to_wait_is_a_number_of_seconds(value: str, valid: bool) -> None:
    shown = Shown()
    sent = request(query=f"index=0&wait={value}")  # it has changed since 0: answered at once
    if valid:
        assert asyncio.run(watching(shown).read(sent, shown.ask)).status == 200
    else:
        with pytest.raises(InvalidInput):
            asyncio.run(watching(shown).read(sent, shown.ask))


@pytest.mark.parametrize("status", [200, 404])
def test_a_write_that_waited_for_its_end_says_its_outcome(status: int) -> None:
    shown = Shown()

    async def ask(_request: Request) -> Answer:
        return Answer(status, [("Omni-Index", "9"), ("Request-Id", "r")], b'{"status":"succeeded"}')

    sent = request("POST", prefer="wait=5")
    accepted = Answer(202, [("Location", "/app/1/info")])
    answer = asyncio.run(watching(shown).until_end(sent, accepted, ask))
    assert answer.status == (200 if status == 200 else 204)
    assert (answer.header("Omni-Outcome"), answer.header("Omni-Index"), answer.header("Request-Id")) == (
        "applied", "9", "r",
    )  # fmt: skip


@pytest.mark.slow
def test_a_waiting_read_ends_at_its_time_out() -> None:
    shown = Shown()
    answer = asyncio.run(watching(shown).read(request(query="index=5&wait=1"), shown.ask))
    assert answer.body == b"{}"


def test_an_index_that_never_comes_is_not_reached() -> None:
    shown = Shown()
    assert asyncio.run(watching(shown).reached(5)) is True
    assert asyncio.run(watching(shown).reached(6)) is False


def test_a_content_type_that_django_cannot_read_is_malformed() -> None:
    async def story() -> None:
        django = DjangoThreads(1)
        try:
            await django.call(request(path="/health/live", content_type="text/plain; a*=no-such''%ff"))
        finally:
            django.close()

    with pytest.raises(Malformed):
        asyncio.run(story())


# -- streams


async def newest(_kind: str, _ids: list[int]) -> dict[int, int]:
    return {}


def test_a_stream_goes_on_where_the_list_ended_and_ends_with_the_build() -> None:
    pages = [
        b'{"items":[{"cursor":"1","line":"a"},{"cursor":"2","line":"b"}],"next":null}',
        b'{"items":[{"cursor":"3","line":"c"}],"next":null}',
        b'{"items":[],"next":null,"ended":{"status":"succeeded"}}',
    ]
    queries: list[str] = []

    async def ask(sent: Request) -> Answer:
        queries.append(sent.query)
        return Answer(200, [], pages[min(len(queries), len(pages)) - 1])

    async def story() -> bytes:
        following = Following(ask, Hub(newest))
        sent = request(path="/app/a/builds/1/logs", accept="text/event-stream")
        answer = await following.stream(sent)
        assert answer.stream is not None
        return b"".join([chunk async for chunk in answer.stream])

    text = asyncio.run(story()).decode()
    assert [line for line in text.splitlines() if line.startswith("id:")] == ["id: 1", "id: 2", "id: 3"]
    assert "event: end" in text
    assert "cursor=2" in queries[1]
    assert "cursor=3" in queries[2]


def _node(draining: bool, drained: bool) -> bytes:
    return orjson.dumps({"status": "draining" if draining else "ready", "draining": draining, "drained": drained})


@pytest.mark.parametrize("last", [_node(True, True), _node(False, False)], ids=["drained", "active"])
def test_a_wait_for_a_node_ends_when_it_is_empty_or_active_again(last: bytes) -> None:
    shown = Shown()
    accepted = Answer(202, [("location", "/nodes/1"), ("omni-index", "1")], b"{}")

    async def ask(sent: Request) -> Answer:
        shown.index += 1
        body = last if shown.index > 3 else _node(True, False)
        return Answer(200, [("omni-index", str(shown.index - 1))], body)

    begun = time.monotonic()
    sent = request("POST", "/nodes/1/drain", prefer="wait=20")
    answer = asyncio.run(watching(shown).until_end(sent, accepted, ask))
    assert (answer.status, answer.body) == (200, last)
    assert time.monotonic() - begun < 10


# -- bodies and answers


def test_a_refused_body_is_read_on_so_that_the_refusal_arrives() -> None:
    sent = request("POST", body=[b"x" * 100] * 50)
    asyncio.run(sent.discard(10_000, 1.0))
    assert sent.body_ended
    more = request("POST", body=[b"x" * 100] * 50)
    asyncio.run(more.discard(1000, 1.0))
    assert not more.body_ended
    waiting = request("POST", body=[b"x"], expect="100-continue")
    asyncio.run(waiting.discard(1000, 1.0))
    assert not waiting.body_ended


async def _stream(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def test_an_answer_is_sent_whole_or_as_it_comes() -> None:
    async def story(answer: Answer, head: bool) -> bytes:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await answer.send(send, head=head)
        return b"".join(message.get("body", b"") for message in sent)

    assert asyncio.run(story(Answer(200, [], b"abc"), False)) == b"abc"
    assert asyncio.run(story(Answer(200, [], b"abc"), True)) == b""
    assert asyncio.run(story(Answer(200, [], stream=_stream([b"a", b"b"])), False)) == b"ab"

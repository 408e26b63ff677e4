"""Two sides meet at a member and nobody else does: by ticket, token and origin; and what they say passes unread."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from omni.front.requests import Answer, Request
from omni.front.talks import Talks

CALLER, AGENT = "/app/1/instances/7/exec", "/agent/exec/5"


class Socket:
    """One client; `said` is what it was told."""

    def __init__(self, path: str, query: str = "", **headers: str) -> None:
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.scope = {"path": path, "query_string": query.encode(), "headers": [(b"host", b"omni.example"), *raw]}
        self.inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})
        self.said: list[dict[str, Any]] = []

    async def send(self, message: dict[str, Any]) -> None:
        self.said.append(message)

    def say(self, **message: Any) -> None:
        self.inbox.put_nowait({"type": "websocket.receive", **message})

    def leave(self) -> None:
        self.inbox.put_nowait({"type": "websocket.disconnect"})

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.said]

    def at(self, talks: Talks) -> asyncio.Task[None]:
        return asyncio.create_task(talks.take(self.scope, self.inbox.get, self.send))


class Platform:
    """Knows one ticket, for session 5 in instance 7, and one node's token."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    async def ask(self, request: Request) -> Answer:
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.asked.append((request.method, request.path, token))
        if request.method == "GET":
            return Answer(204 if token == "node" else 401, [])
        good = json.loads(await request.body(1000, 1.0)) == {"ticket": "good"} and token == "own"
        body = {"id": 5, "instance_id": 7} if good else {"code": "ticket_used", "detail": "used"}
        return Answer(200 if good else 409, [], json.dumps(body).encode())


@pytest.fixture
def talks() -> Talks:
    return Talks(Platform().ask, "own", "https://console.example")


def test_messages_pass_both_ways_and_the_end_of_one_side_is_the_end_of_the_other(talks: Talks) -> None:
    async def story() -> None:
        caller, agent = Socket(CALLER, "session=5&ticket=good"), Socket(AGENT, authorization="Bearer node")
        waiting = caller.at(talks)
        while 5 not in talks._meetings:
            await asyncio.sleep(0)
        coming = agent.at(talks)
        caller.say(bytes=b"\x00in")
        agent.say(bytes=b"\x01out", text=None)
        agent.say(text='{"type": "exit"}', bytes=None)
        while len(caller.said) < 3 or len(agent.said) < 2:
            await asyncio.sleep(0)
        agent.leave()
        await asyncio.gather(waiting, coming)
        assert caller.types == ["accept", "send", "send", "close"]
        assert [m.get("bytes") or m.get("text") for m in caller.said[1:3]] == [b"\x01out", '{"type": "exit"}']
        assert agent.said[1] == {"type": "websocket.send", "bytes": b"\x00in"}
        assert agent.types[-1] == "close"
        assert talks._meetings == {}

    asyncio.run(asyncio.wait_for(story(), 10))


@pytest.mark.parametrize(("path", "query", "headers", "types"), [
    (CALLER, "session=5&ticket=bad", {}, ["accept", "send", "close"]),
    (CALLER, "session=x&ticket=good", {}, ["accept", "send", "close"]),
    ("/app/1/instances/8/exec", "session=5&ticket=good", {}, ["accept", "send", "close"]),
    (CALLER, "session=5&ticket=good", {"origin": "https://evil.example"}, ["close"]),
    (CALLER, "session=5&ticket=good", {"origin": "null"}, ["close"]),
    (CALLER, "session=5&ticket=bad", {"origin": "http://omni.example"}, ["accept", "send", "close"]),
    (CALLER, "session=5&ticket=bad", {"origin": "https://console.example"}, ["accept", "send", "close"]),
    (AGENT, "", {"authorization": "Bearer node"}, ["close"]),  # nobody waits for it
    ("/elsewhere", "", {}, ["close"]),
])  # fmt: skip
def test_nobody_else_gets_in(talks: Talks, path: str, query: str, headers: dict[str, str], types: list[str]) -> None:
    async def story() -> None:
        socket = Socket(path, query, **headers)
        await socket.at(talks)
        assert socket.types == types
        assert socket.said[-1]["code"] != 1000
        assert talks._meetings == {}

    asyncio.run(asyncio.wait_for(story(), 10))


def test_a_stranger_with_the_agents_path_is_turned_away(talks: Talks) -> None:
    async def story() -> None:
        caller, stranger = Socket(CALLER, "session=5&ticket=good"), Socket(AGENT, authorization="Bearer wrong")
        waiting = caller.at(talks)
        while 5 not in talks._meetings:
            await asyncio.sleep(0)
        await stranger.at(talks)
        assert stranger.types == ["close"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(asyncio.wait_for(story(), 10))

"""Talks with commands, over a real WebSocket to a member played by hand: their limits, their ends, who is told what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from websockets.asyncio.server import ServerConnection, serve

from agent import sessions
from agent.protocol import SessionOrder, SessionSeen
from agent.runtimes.base import Unavailable
from agent.runtimes.entering import Entered, Entry, Piece
from agent.sessions import Sessions


class Command(Entered):
    """Says back what it hears; ends with its input, or at `over`."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[Piece | None] = asyncio.Queue()
        self.over = asyncio.Event()
        self.ended = False
        self.sizes: list[tuple[int, int]] = []

    async def read(self) -> Piece | None:
        return await self.said.get()

    async def write(self, data: bytes) -> None:
        await self.said.put((2, data))

    async def end_input(self) -> None:
        await self.said.put(None)
        self.over.set()

    async def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def wait(self) -> int | None:
        await self.over.wait()
        return 5

    async def end(self) -> None:
        self.ended = True


class Bench:
    """A node with instance 7, whose commands are `command`; `told` is what the control plane hears."""

    def __init__(self) -> None:
        self.command = Command()
        self.told: list[SessionSeen] = []
        self.news = asyncio.Event()
        self.url = ""
        self.sessions: Sessions

    async def enter(self, entry: Entry) -> Entered:
        if entry.argv == ("refuse",):
            raise Unavailable("not now")
        return self.command

    def tell(self, seen: SessionSeen) -> None:
        self.told.append(seen)
        self.news.set()

    def order(self, **fields: Any) -> SessionOrder:
        return SessionOrder(**{"id": 1, "instance_id": 7, "argv": ["sh"], "urls": [self.url], **fields})

    async def end(self) -> SessionSeen:
        while not (self.told and self.told[-1].ended):
            self.news.clear()
            await self.news.wait()
        return self.told[-1]


def play(member: Callable[[ServerConnection], Awaitable[None]], story: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = Bench()
        async with serve(member, "127.0.0.1", 0) as server:
            bench.url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            config = SimpleNamespace(control_plane=[bench.url], token="node", tls=None)
            bench.sessions = Sessions(cast(Any, config), cast(Any, {7: bench}), bench.tell)
            try:
                async with asyncio.timeout(20):
                    await story(bench)
            finally:
                await bench.sessions.close()

    asyncio.run(whole())


async def silent(connection: ServerConnection) -> None:
    await connection.wait_closed()


def test_what_is_said_passes_and_the_code_is_told_to_both() -> None:
    heard: list[Any] = []

    async def member(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/agent/exec/1"
        assert connection.request.headers["Authorization"] == "Bearer node"
        await connection.send(json.dumps({"type": "resize", "columns": 99, "rows": 9}))
        await connection.send(json.dumps({"type": "resize", "columns": -1, "rows": "x"}))
        await connection.send("no JSON")
        await connection.send(b"\x00hello")
        heard.append(await connection.recv())
        await connection.send(json.dumps({"type": "eof"}))
        heard.append(json.loads(await connection.recv()))

    async def story(bench: Bench) -> None:
        bench.sessions.apply([bench.order()])
        assert await bench.end() == SessionSeen(1, True, 5, "exited")
        assert bench.told[0] == SessionSeen(1)
        assert heard == [b"\x02hello", {"type": "exit", "code": 5, "reason": "exited", "detail": ""}]
        assert bench.command.sizes == [(99, 9)]
        assert bench.command.ended
        bench.sessions.apply([bench.order(running=True)])  # the list is older than the end
        assert len(bench.told) == 2

    play(member, story)


@pytest.mark.parametrize(("limits", "reason"), [({"idle_s": 0.1}, "idle"), ({"max_s": 0.1}, "too_long")])
def test_time_ends_it(limits: dict[str, float], reason: str) -> None:
    async def story(bench: Bench) -> None:
        bench.sessions.apply([bench.order(**limits)])
        assert (await bench.end()).reason == reason
        assert bench.command.ended

    play(silent, story)


def test_who_leaves_and_who_is_no_longer_listed_end_it() -> None:
    async def leaves(connection: ServerConnection) -> None:
        await connection.close()

    async def closed(bench: Bench) -> None:
        bench.sessions.apply([bench.order()])
        assert (await bench.end()).reason == "closed"

    async def unlisted(bench: Bench) -> None:
        bench.sessions.apply([bench.order()])
        while not bench.told:
            await asyncio.sleep(0)
        bench.sessions.apply([])
        while not bench.command.ended:
            await asyncio.sleep(0)

    play(leaves, closed)
    play(silent, unlisted)


def test_what_cannot_be_run_is_said_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_FIND_S", 0.1)

    async def story(bench: Bench) -> None:
        cases = [
            (bench.order(argv=["refuse"]), "refused"),
            (bench.order(id=2, instance_id=8), "refused"),
            (bench.order(id=3, urls=["http://127.0.0.1:1"]), "nobody_there"),  # no member of ours
            (bench.order(id=4, running=True), "agent_restarted"),  # an earlier agent's
        ]
        for order, reason in cases:
            bench.told.clear()
            bench.sessions.apply([order])
            seen = await bench.end()
            assert (seen.id, seen.reason, seen.code) == (order.id, reason, None)

    play(silent, story)

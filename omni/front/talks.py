"""WebSockets: a caller with a ticket, the agent of his instance's node, and what passes between the two.

    /app/<app>/instances/<id>/exec?session=&ticket=   the caller; the leader is told that he waits at this member
    /agent/exec/<session>                             the agent, who heard of it with his list and came here

Owns the meeting of the two and the passing on of messages, one at a time, so that a slow side slows the other. Reads no
message, keeps none. A page of another site gets in nowhere: browsers say where a page came from.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from omni.front.requests import Answer, Receive, Request, Scope, Send

_CALLER = re.compile(r"/app/([^/]{1,80})/instances/(\d{1,18})/exec")
_AGENT = re.compile(r"/agent/exec/(\d{1,18})")
_MEET_S = 25.0
_TALKS = 256  # on one member at once
MESSAGE_BYTES = 1 << 20
_FINE, _POLICY, _TOO_BIG, _TROUBLE, _FULL = 1000, 1008, 1009, 1011, 1013
Ask = Callable[[Request], Awaitable[Answer]]


@dataclass(slots=True, eq=False)
class _Side:
    receive: Receive
    send: Send


@dataclass(slots=True, eq=False)
class _Meeting:
    agent: asyncio.Future[_Side] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Talks:
    """`ask` answers a request as this member would; `token` is this member's own; `public` where users reach it."""

    ask: Ask
    token: str
    public: str = ""
    _meetings: dict[int, _Meeting] = field(default_factory=dict)

    async def take(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        caller, agent = _CALLER.fullmatch(scope["path"]), _AGENT.fullmatch(scope["path"])
        if caller and self._is_own_site(headers):
            await self._caller(scope, caller, _Side(receive, send))
        elif agent and "origin" not in headers:
            await self._agent(scope, int(agent[1]), headers, _Side(receive, send))
        else:
            await send({"type": "websocket.close", "code": _POLICY})

    def _is_own_site(self, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return True  # no browser: the ticket alone counts
        return urlsplit(origin).netloc in {headers.get("host"), urlsplit(self.public).netloc or None}

    async def _caller(self, scope: Scope, found: re.Match[str], side: _Side) -> None:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        session, ticket = query.get("session", [""])[0], query.get("ticket", [""])[0]
        await side.send({"type": "websocket.accept"})
        if not (session.isascii() and session.isdigit() and len(session) < 19):
            await _refuse(side, _POLICY, {"code": "not_found", "detail": "There is no such session."})
            return
        number = int(session)
        if len(self._meetings) >= _TALKS:
            await _refuse(side, _FULL, {"code": "too_many_sessions", "detail": "Too many sessions at this member."})
            return
        problem = await self._attach(scope, number, ticket, found)
        if problem is not None:
            await _refuse(side, _POLICY, problem)
            return
        self._meetings[number] = meeting = _Meeting()
        try:
            await self._with_agent(side, meeting)
        finally:
            meeting.over.set()
            self._meetings.pop(number, None)

    async def _attach(self, scope: Scope, number: int, ticket: str, found: re.Match[str]) -> dict[str, Any] | None:
        """Tells the leader; what he has against it."""
        body = json.dumps({"ticket": ticket}).encode()
        answer = await self.ask(self._request(scope, "POST", f"/agent/exec/{number}/attach", body, self.token))
        said = _json(answer.body)
        if answer.status != 200:
            return {"code": said.get("code", "failed"), "detail": said.get("detail", "The session cannot be opened.")}
        if str(said.get("instance_id")) != found[2]:
            return {"code": "not_found", "detail": "There is no such session."}
        return None

    async def _with_agent(self, caller: _Side, meeting: _Meeting) -> None:
        try:
            agent = await asyncio.wait_for(meeting.agent, _MEET_S)
        except TimeoutError:
            detail = "The agent of the instance's node did not come; nothing was run."
            await _refuse(caller, _TROUBLE, {"code": "no_agent", "detail": detail})
            return
        to_caller = asyncio.create_task(_pass_on(agent, caller))
        to_agent = asyncio.create_task(_pass_on(caller, agent))
        try:
            await asyncio.wait({to_caller, to_agent}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            codes = [task.result() for task in (to_caller, to_agent) if task.done() and not task.cancelled()]
            for task in (to_caller, to_agent):
                task.cancel()
            await asyncio.gather(to_caller, to_agent, return_exceptions=True)
            for side in (caller, agent):
                await _close(side, max(codes, default=_FINE))

    async def _agent(self, scope: Scope, number: int, headers: dict[str, str], side: _Side) -> None:
        """Refused before the handshake: the agent tries again, perhaps at another process of this member."""
        meeting = self._meetings.get(number)
        token = headers.get("authorization", "").partition(" ")[2]
        if meeting is not None and not meeting.agent.done():
            answer = await self.ask(self._request(scope, "GET", f"/agent/exec/{number}", b"", token))
            if answer.status == 204 and not meeting.agent.done() and not meeting.over.is_set():
                await side.send({"type": "websocket.accept"})
                if not meeting.agent.done():
                    meeting.agent.set_result(side)
                    await meeting.over.wait()
                    return
        await side.send({"type": "websocket.close", "code": _POLICY})

    def _request(self, scope: Scope, method: str, path: str, body: bytes, token: str) -> Request:
        headers = {
            "authorization": f"Bearer {token}", "content-type": "application/json", "content-length": str(len(body)),
        }  # fmt: skip
        client, server = scope.get("client"), scope.get("server")

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        return Request(
            method, path, "", headers, client[0] if client else "", "http",
            (server[0], server[1] or 0) if server else ("", 0), receive,
        )  # fmt: skip


async def _pass_on(source: _Side, target: _Side) -> int:
    """Until the source leaves; the code to close with."""
    while True:
        message = await source.receive()
        if message["type"] != "websocket.receive":
            return _FINE
        data, text = message.get("bytes"), message.get("text")
        if len(data or text or "") > MESSAGE_BYTES:
            return _TOO_BIG
        if data is not None:
            await target.send({"type": "websocket.send", "bytes": data})
        elif text is not None:
            await target.send({"type": "websocket.send", "text": text})


async def _refuse(side: _Side, code: int, problem: dict[str, Any]) -> None:
    with contextlib.suppress(Exception):  # the server's own ways of saying that nobody is there any more
        await side.send({"type": "websocket.send", "text": json.dumps({"type": "error", **problem})})
    await _close(side, code)


async def _close(side: _Side, code: int) -> None:
    with contextlib.suppress(Exception):
        await side.send({"type": "websocket.close", "code": code})


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

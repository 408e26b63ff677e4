"""A follower's part of a write: find the leader, hand the request over, relay the answer.

Owns what is repeated and what is said when it cannot be (DECISIONS 10). A body that did not go out whole was not
applied; one that did is repeated only if it was buffered and has an Idempotency-Key, else its outcome is unknown. A
leader that hangs is given up as soon as another one is known (`leaders`), not at a time-out.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import quote

import orjson

from observing import tracing
from omni.front.hop import HEADER, Hop
from omni.front.leaders import Leaders, Superseded
from omni.front.requests import Answer, BodyTooLarge, Request
from omni.front.wire import Broken, ConnectFailed, Wire
from omni.kernel import failpoints
from omni.kernel.errors import NoLeader, OutcomeUnknown, TooLarge

# Whoever took the request waits for the end that `Prefer` asks for: that wait survives the leader.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
     "content-length", "expect", "prefer", HEADER}
)  # fmt: skip
_NOT_RELAYED = frozenset({"connection", "keep-alive", "transfer-encoding", "server", "date"})
LOST = "omni.lost"  # in a request's extras: one try went out whole and got no answer
_SMALL = 1 << 20
_CONNECT_S = 1.0
_LOSSES = 3  # how often a keyed write is lost before its outcome is called unknown after all


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds: waiting for a leader, its longest silence, a client's longest silence."""

    wait_s: float
    timeout_s: float
    idle_s: float


@dataclass(slots=True)
class _Body:
    """What goes out: the buffered body, or the client's stream. Knows whether all of it went."""

    request: Request
    whole: bytes | None
    announced: int | None
    idle_s: float
    begun: bool = False
    sent: bool = False

    @classmethod
    def of(cls, request: Request, whole: bytes | None, idle_s: float) -> _Body:
        length = request.headers.get("content-length", "")
        announced = len(whole) if whole is not None else int(length) if length.isdigit() else None
        return cls(request, whole, announced, idle_s)

    @property
    def can_be_sent_again(self) -> bool:
        return self.whole is not None or not self.begun

    def content(self) -> AsyncIterator[bytes] | bytes:
        """To be sent now. A body in memory counts as sent from here on: one write is all it takes."""
        if self.whole is None:
            return self._chunks()
        self.sent = True
        return self.whole

    async def _chunks(self) -> AsyncIterator[bytes]:
        size, self.begun = 0, True
        async for chunk in self.request.chunks(self.idle_s):
            size += len(chunk)
            # From the last byte on the leader may have it all, whatever we hear of it.
            self.sent = self.request.body_ended or (self.announced is not None and size >= self.announced)
            yield chunk
        self.sent = True


@dataclass(slots=True)
class Forwarder:
    """`reach` turns a leader's `host:port` into the URL that this host reaches it at; `context` is for `https`."""

    leaders: Leaders
    hop: Hop
    times: Times
    reach: Callable[[str], str]
    context: ssl.SSLContext | None = None
    _wire: Wire | None = None
    _wire_of: str = ""

    def deadline(self) -> float:
        """Until when a write that comes now waits for a leader."""
        return time.monotonic() + self.times.wait_s

    async def forward(self, request: Request, whole: bytes | None) -> Answer | None:
        """The leader's answer; None when this member turned out to lead. Raises OmniError.

        `whole` is the buffered body, which can be sent again; None sends the request's own as it comes in. Once a try
        was lost, no refusal of a later one says that nothing happened (`settled`).
        """
        body = _Body.of(request, whole, self.times.idle_s)
        deadline, losses, refusals = self.deadline(), 0, 0
        while True:
            leader = await self.leader_for(request, deadline)
            if leader == self.leaders.me:
                return None
            try:
                with tracing.span("forward", kind="client", leader=leader):
                    answer = await self.leaders.during(leader, self._send(request, leader, body))
            except ConnectFailed as error:
                self.leaders.avoid(leader)
                if not body.can_be_sent_again:
                    raise _not_sent(leader) from error
                continue
            except (Broken, Superseded) as error:
                losses += 1
                self._after_loss(leader, body, losses, error)
                deadline = self.deadline()  # it was somebody's turn until now: waiting for the next leader begins
                continue
            if not was_refused(answer) or body.whole is None or time.monotonic() >= deadline:
                return settled(request, answer)
            refusals += 1
            await asyncio.sleep(min(0.4, 0.05 * 2**refusals) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def leader_for(self, request: Request, deadline: float) -> str:
        """The leader, this member perhaps. Raises NoLeader, or OutcomeUnknown once a try of the request was lost."""
        try:
            return await self.leaders.await_one(deadline)
        except NoLeader as error:
            if LOST in request.extra:
                raise _unknown("A first try was lost, and nobody could be asked again") from error
            raise

    def _after_loss(self, leader: str, body: _Body, losses: int, error: BaseException) -> None:
        """Whether to go on after the connection broke or the leader was given up. Raises what the client is told."""
        if not isinstance(error, Superseded):
            self.leaders.avoid(leader)
        if not body.sent:
            if not body.can_be_sent_again or losses >= _LOSSES:
                raise _not_sent(leader) from error
            return
        body.request.extra[LOST] = True
        keyed = "idempotency-key" in body.request.headers
        if body.whole is None or not keyed or losses >= _LOSSES:
            raise _unknown(f"The leader {leader} took the request and did not answer") from error

    async def close(self) -> None:
        if self._wire is not None:
            await self._wire.close()

    async def _send(self, request: Request, leader: str, body: _Body) -> Answer:
        body.sent = False
        target = quote(request.path) + (f"?{request.query}" if request.query else "")
        wire = await self._wire_to(leader)
        response = await wire.call(request.method, target, self._headers(request, body), body.content())
        failpoints.hit("forward_sent_before_reply")
        relayed = [(name, value) for name, value in response.headers if name not in _NOT_RELAYED]
        answer = Answer(response.status, relayed, stream=response.body)
        length = answer.header("content-length")
        if not length.isdigit() or int(length) <= _SMALL:
            await _gather(answer)
        return answer

    def _headers(self, request: Request, body: _Body) -> list[tuple[str, str]]:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        headers.setdefault("host", f"{request.server[0]}:{request.server[1]}")
        headers[HEADER] = self.hop.sign(request)
        if span := tracing.here():
            headers[tracing.HEADER] = span
        if body.announced is not None:
            headers["content-length"] = str(body.announced)
        else:
            headers["transfer-encoding"] = "chunked"
        return list(headers.items())

    async def _wire_to(self, leader: str) -> Wire:
        """Connections to this leader only: what was open to a former one is not used again."""
        if self._wire is None or self._wire_of != leader:
            if self._wire is not None:
                await self._wire.close()
            self._wire = Wire(self.reach(leader), self.context, _CONNECT_S, self.times.timeout_s)
            self._wire_of = leader
        return self._wire


async def _gather(answer: Answer) -> None:
    """A small answer in one piece; what turns out to be large goes on as a stream."""
    parts: list[bytes] = []
    size = 0
    stream = answer.stream
    if stream is None:
        return
    async for block in stream:
        parts.append(block)
        size += len(block)
        if size > _SMALL:
            answer.stream = _after(parts, stream)
            return
    answer.body, answer.stream = b"".join(parts), None


async def _after(parts: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield b"".join(parts)
    async for block in rest:
        yield block


def _not_sent(leader: str) -> NoLeader:
    return NoLeader(
        f"The connection to the leader {leader} broke before all of the body was sent; nothing was changed."
    )


def settled(request: Request, answer: Answer) -> Answer:
    """The answer, if it tells the request's fate: after a lost try a 503 does not. Raises OutcomeUnknown."""
    if LOST in request.extra and answer.status == 503:
        raise _unknown("A first try was lost, and a second one was not taken")
    return answer


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{why}.")


def was_refused(answer: Answer) -> bool:
    """Whether a member said that it may not write and changed nothing: another one may."""
    if answer.status != 503 or answer.header("omni-outcome") != "not-applied":
        return False
    try:
        problem = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(problem, dict) and problem.get("code") == NoLeader.code


async def buffered(request: Request, limit: int, idle_s: float) -> bytes:
    """The whole body. Raises TooLarge."""
    try:
        return await request.body(limit, idle_s)
    except BodyTooLarge:
        raise TooLarge(f"The body is larger than {limit} bytes.") from None

"""A follower's part of a write: find the leader, hand the request over, relay the answer.

Owns the hop: the signed header that carries the caller's address (one hop only), the wait for a leader, and what to
say when the connection broke (DECISIONS 10). A body that was not sent whole is never repeated; a body that was sent
is repeated only under an Idempotency-Key.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

from consensus.lease import ConsensusUnavailable, Held, Lease, NotHeld
from omni.front.requests import Answer, BodyTooLarge, Request
from omni.kernel import failpoints
from omni.kernel.errors import NoLeader, OmniError, OutcomeUnknown, TooLarge

HEADER = "omni-forwarded"
MAX_AGE_S = 30.0
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host",
     "content-length", "expect", HEADER}
)  # fmt: skip
_NOT_RELAYED = frozenset({"connection", "keep-alive", "transfer-encoding", "server", "date"})
_POLL_S = 0.02
_NONCES = 20_000


@dataclass(slots=True)
class Hop:
    """Signs a forwarded request, and verifies one that came in."""

    key: bytes
    member: str
    _seen: dict[str, float] = field(default_factory=dict)

    def sign(self, request: Request) -> str:
        now, nonce = f"{time.time():.3f}", secrets.token_hex(8)
        return ";".join([self.member, request.client, now, nonce, self._mac(request, request.client, now, nonce)])

    def verify(self, request: Request, value: str) -> str | None:
        """The original client's address; None for a header that is forged, old, or was used before."""
        parts = value.split(";")
        if len(parts) != 5:
            return None
        member, client, at, nonce, mac = parts
        expected = self._mac(request, client, at, nonce, member)
        if not hmac.compare_digest(mac.encode(), expected.encode()):  # as bytes: text must be ASCII
            return None
        if abs(time.time() - float(at)) > MAX_AGE_S or nonce in self._seen:
            return None
        if len(self._seen) >= _NONCES:
            self._seen = {key: when for key, when in self._seen.items() if when > time.time() - MAX_AGE_S}
        self._seen[nonce] = time.time()
        return client

    def _mac(self, request: Request, client: str, at: str, nonce: str, member: str = "") -> str:
        text = "\n".join([member or self.member, request.method, request.path, request.query, client, at, nonce])
        return hmac.new(self.key, text.encode(), "sha256").hexdigest()


@dataclass(slots=True)
class Forwarder:
    """`me` is `"<host>:<port>"`. Times in seconds."""

    lease: Lease
    hop: Hop
    me: str
    wait_s: float
    timeout_s: float
    idle_s: float
    body_limit: int
    _client: httpx.AsyncClient | None = None

    async def leader(self) -> str | None:
        """None when this member leads; else the leader's `host:port`. Raises NoLeader after `wait_s`."""
        deadline = time.monotonic() + self.wait_s
        while True:
            try:
                answer = self.lease.current()
            except ConsensusUnavailable:
                answer = NotHeld(None)
            if isinstance(answer, Held):
                return None
            if answer.leader not in (None, self.me):
                return answer.leader
            if time.monotonic() > deadline:
                raise NoLeader("No leader was there within the time that a write waits.")
            await asyncio.sleep(_POLL_S)

    async def forward(self, request: Request, *, stream: bool) -> Answer | None:
        """The leader's answer; None when this member turned out to lead. Raises OmniError.

        `stream` sends the body as it comes in; otherwise it is read first, and can be sent again.
        """
        body = None if stream else await self._buffer(request)
        deadline = time.monotonic() + self.wait_s
        while True:
            leader = await self.leader()
            if leader is None:
                request.extra["omni.body"] = body
                return None
            try:
                answer = await self._send(request, leader, body)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                if time.monotonic() > deadline:
                    raise NoLeader(f"The leader {leader} cannot be reached.") from error
                await asyncio.sleep(0.1)
                continue
            except httpx.HTTPError as error:
                if body is None or "idempotency-key" not in request.headers or time.monotonic() > deadline:
                    raise OutcomeUnknown(f"The connection to the leader {leader} broke.") from error
                await asyncio.sleep(0.1)
                continue
            refused = answer.status == 503 and answer.header("omni-outcome") == "not-applied"
            if refused and body is not None and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                continue
            return answer

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _buffer(self, request: Request) -> bytes:
        try:
            return await request.body(self.body_limit, self.idle_s)
        except BodyTooLarge:
            raise TooLarge(f"The body is larger than {self.body_limit} bytes.") from None

    async def _send(self, request: Request, leader: str, body: bytes | None) -> Answer:
        if self._client is None:
            timeout = httpx.Timeout(self.timeout_s, connect=1.0, pool=self.wait_s)
            limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
            self._client = httpx.AsyncClient(timeout=timeout, limits=limits, trust_env=False)
        headers = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
        headers[HEADER] = self.hop.sign(request)
        if request.headers.get("host"):
            headers["host"] = request.headers["host"]
        if body is None and request.headers.get("content-length"):
            headers["content-length"] = request.headers["content-length"]
        raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        url = f"http://{leader}{quote(request.path)}" + (f"?{request.query}" if request.query else "")
        content = request.chunks(self.idle_s) if body is None else body
        outgoing = self._client.build_request(request.method, url, headers=raw_headers, content=content)
        response = await self._client.send(outgoing, stream=True)
        failpoints.hit("forward_sent_before_reply")
        relayed = [(name, value) for name, value in response.headers.multi_items() if name not in _NOT_RELAYED]
        if int(response.headers.get("content-length", "1048577")) <= 1 << 20:
            data = b"".join([chunk async for chunk in response.aiter_raw()])
            await response.aclose()
            return Answer(response.status_code, relayed, data)
        return Answer(response.status_code, relayed, stream=_relay(response))


async def _relay(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_raw():
            yield chunk
    finally:
        await response.aclose()


def unreachable(leader: str) -> OmniError:
    return NoLeader(f"The leader {leader} cannot be reached.")

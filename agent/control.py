"""The control plane as one thing that answers: whichever member does.

Owns the choice of member: the node's own first, the next one when it does not answer, the own again after a while.
Interprets nothing of what is said.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from agent import clock
from agent.wire import Request, Response, WireError, fetch

OWN_AGAIN_S = 10.0
_ELSEWHERE = frozenset({502, 503, 504})


class NoAnswer(Exception):
    """No member gave an answer that means anything. Try again later."""


class Rejected(Exception):
    """A member answered and said no; repeating the same will not help."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class ControlPlane:
    def __init__(
        self,
        members: list[str],
        token: str,
        now: Callable[[], float] = clock.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._members = [member.rstrip("/") for member in members]
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._now = now
        self._current = 0
        self._left_own = 0.0

    @property
    def current(self) -> str:
        return self._members[self._current]

    async def get(self, path: str, timeout_s: float) -> Any:
        return _decoded(await self._any("GET", path, b"", timeout_s))

    async def post(self, path: str, body: bytes, timeout_s: float) -> Any:
        return _decoded(await self._any("POST", path, body, timeout_s))

    async def download(self, path: str, timeout_s: float, limit: int, open_sink: Callable[[], Any]) -> None:
        """Stream a body into a fresh sink; each member that is tried gets a new one, so that no halves are joined."""
        await self._any("GET", path, b"", timeout_s, limit, open_sink)

    async def upload(
        self, path: str, media_type: str, timeout_s: float, open_chunks: Callable[[], AsyncIterator[bytes]]
    ) -> Any:
        """PUT a body as it comes; each member that is tried gets it from the beginning."""
        return _decoded(await self._any("PUT", path, b"", timeout_s, media_type=media_type, open_chunks=open_chunks))

    async def _any(
        self,
        method: str,
        path: str,
        body: bytes,
        timeout_s: float,
        limit: int = 64 * 1024 * 1024,
        open_sink: Callable[[], Any] | None = None,
        media_type: str = "application/json",
        open_chunks: Callable[[], AsyncIterator[bytes]] | None = None,
    ) -> Response:
        headers = {**self._headers, "Content-Type": media_type} if body or open_chunks else self._headers
        problem = "no member is configured"
        for position in self._order():
            chunks = open_chunks() if open_chunks else None
            request = Request(method, self._members[position] + path, headers, body, chunks)
            try:
                answer = await fetch(request, timeout_s, limit, open_sink() if open_sink else None, tls=self._tls)
            except WireError as error:
                problem = str(error)
                continue
            if answer.status in _ELSEWHERE:
                problem = f"{request.url}: {answer.status} {_excerpt(answer)}"
                continue
            self._settle(position)
            if answer.status >= 500:
                raise NoAnswer(f"{request.url}: {answer.status} {_excerpt(answer)}")
            if answer.status >= 400:
                raise Rejected(answer.status, f"{path}: {_excerpt(answer)}")
            return answer
        raise NoAnswer(problem)

    def _order(self) -> list[int]:
        count = len(self._members)
        start = self._current
        if start != 0 and self._now() - self._left_own >= OWN_AGAIN_S:
            self._left_own = self._now()
            start = 0
        return [(start + offset) % count for offset in range(count)]

    def _settle(self, position: int) -> None:
        if position != self._current:
            if self._current == 0:
                self._left_own = self._now()
            self._current = position


def _excerpt(answer: Response) -> str:
    return answer.body[:300].decode("utf-8", "replace").replace("\n", " ")


def _decoded(answer: Response) -> Any:
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise NoAnswer(f"an answer that is not JSON: {_excerpt(answer)}") from error

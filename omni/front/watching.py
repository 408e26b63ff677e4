"""Waiting for a change: `?index=&wait=` on any read, `?min_index=`, `Prefer: wait=` on a write.

Owns the waiting, so that no Django thread ever waits. One poll of the write index serves all waiters of the process,
and none runs while nobody waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson

from omni.front.requests import Answer, Request
from omni.kernel.errors import FieldError, InvalidInput
from omni.rest import index

POLL_S = 0.1
CALM_S = 0.4  # between two polls when nothing was written for a while: agents wait at every member all the time
CALM_AFTER_S = 5.0
_REMEMBERED = 2_000
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_ENDED = frozenset({"succeeded", "failed", "cancelled", "reverted", "stopped", "lost"})

Ask = Callable[[Request], Awaitable[Answer]]


@dataclass(slots=True)
class IndexWatch:
    """Wakes its waiters when the write index has grown. `read` reads it on a Django thread."""

    read: Callable[[], Awaitable[int]]
    _waiters: dict[asyncio.Future[None], int] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None
    _found: int = -1
    _moved_at: float = 0.0

    async def beyond(self, at: int, timeout_s: float) -> bool:
        """True once the write index is above `at`, False after `timeout_s`."""
        if timeout_s <= 0:
            return False
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[future] = at
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            del self._waiters[future]
        return True

    async def _poll(self) -> None:
        while self._waiters:
            try:
                found = await self.read()
            except Exception:  # the database is away: the waiters' own time-outs decide
                await asyncio.sleep(1.0)
                continue
            for future, at in list(self._waiters.items()):
                if found > at and not future.done():
                    future.set_result(None)
            await asyncio.sleep(self._pause(found))

    def _pause(self, found: int) -> float:
        now = time.monotonic()
        if found != self._found:
            self._found, self._moved_at = found, now
        return POLL_S if now - self._moved_at < CALM_AFTER_S else CALM_S


@dataclass(slots=True)
class _Seen:
    """What a watched URL showed: tag `tag`, unchanged from index `since` to `until`."""

    tag: str
    since: int
    until: int


@dataclass(slots=True)
class Watching:
    watch: IndexWatch
    max_wait_s: float
    min_index_wait_s: float
    _seen: OrderedDict[str, _Seen] = field(default_factory=OrderedDict)

    async def read(self, request: Request, ask: Ask) -> Answer:
        """Answer a read with `index`/`wait`: when what it shows has changed after `index`, or at the time-out."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        at = whole_number(request, "index")
        wait_s = min(_seconds(query.get("wait", "0")), self.max_wait_s)
        query = {name: value for name, value in query.items() if name not in ("index", "wait")}
        plain = Request(**{name: getattr(request, name) for name in Request.__dataclass_fields__})
        plain.query = urlencode(query)
        who = hashlib.sha256(plain.headers.get("authorization", "").encode()).hexdigest()
        key = f"{plain.path}?{plain.query}#{who}"
        deadline = time.monotonic() + wait_s
        while True:
            answer = await ask(plain)
            now = int(answer.header("omni-index") or 0)
            left = deadline - time.monotonic()
            if answer.status != 200 or self._changed_after(key, answer, at, now) or left <= 0:
                return answer
            await self.watch.beyond(now, left)

    async def reached(self, wanted: int) -> bool:
        """Whether this member has seen index `wanted`, waiting for it as long as configured."""
        return index.seen(0) >= wanted or await self.watch.beyond(wanted - 1, self.min_index_wait_s)

    async def until_end(self, request: Request, accepted: Answer, ask: Ask) -> Answer:
        """`Prefer: wait=N`: the object of a 202 at its end, or the 202 itself after N seconds.

        Looks at it here, whoever made the change: this member has to have seen it first.
        """
        wait_s = min(preferred_wait(request), self.max_wait_s)
        location = urlsplit(accepted.header("location"))
        deadline = time.monotonic() + wait_s
        headers = {name: value for name, value in request.headers.items() if name in ("authorization", "cookie")}
        look = Request("GET", location.path, location.query, headers, request.client, request.scheme, request.server,
                       request.receive)  # fmt: skip
        if not await self.reached(int(accepted.header("omni-index") or 0)):
            return accepted
        while location.path and (left := deadline - time.monotonic()) > 0:
            answer = await ask(look)
            if answer.status == 404:
                return Answer(204, [*_marks(answer), ("Omni-Outcome", "applied"), _applied(wait_s)])
            if answer.status != 200 or _has_ended(answer):
                answer.headers += [("Omni-Outcome", "applied"), _applied(wait_s)]
                return answer
            await self.watch.beyond(int(answer.header("omni-index") or 0), left)
        return accepted

    def _changed_after(self, key: str, answer: Answer, at: int, now: int) -> bool:
        tag = answer.header("etag") or hashlib.sha256(answer.body).hexdigest()
        seen = self._seen.get(key)
        if seen is None or seen.tag != tag or seen.until > now:
            seen = self._seen[key] = _Seen(tag, now, now)
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        seen.until = max(seen.until, now)
        return at < seen.since


def whole_number(request: Request, name: str) -> int:
    """A number of the query; 0 when it is not there. Raises InvalidInput for anything else."""
    text = dict(parse_qsl(request.query, keep_blank_values=True)).get(name, "0")
    if not _is_number(text):
        raise _refused(name, "A whole number is wanted.")
    return int(text)


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise _refused("wait", "A number of seconds is wanted.")
    return float(text)


def _refused(name: str, detail: str) -> InvalidInput:
    problem = FieldError(f"?{name}", "invalid", detail)
    return InvalidInput(f"The query parameter {name} is not valid.", errors=[problem])


def preferred_wait(request: Request) -> float:
    """The seconds of `Prefer: wait=N`; 0 when it is not there."""
    for part in request.headers.get("prefer", "").split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "wait":
            return _number(value)
    return 0.0


def _number(text: str) -> int:
    return int(text) if _is_number(text) else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _marks(answer: Answer) -> list[tuple[str, str]]:
    """The headers that every answer has."""
    return [header for header in answer.headers if header[0].lower() == "request-id" or header[0].startswith("Omni-")]


def _applied(wait_s: float) -> tuple[str, str]:
    return "Preference-Applied", f"wait={wait_s:g}"


def _has_ended(answer: Answer) -> bool:
    """Whether what the object shows is the end of what was asked for. A node's is being empty, or taking instances."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(body, dict):
        return False
    if body.get("status") in _ENDED:
        return True
    return "drained" in body and bool(body["drained"] or not body.get("draining"))

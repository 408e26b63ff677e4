"""Artifacts between hosts: an upload is copied before it is acknowledged, a missing one is fetched from who has it.

Owns `/internal/copies`, which members alone may use, and both directions of the bytes, streamed and checked by digest.
Works without the database: whoever needs the bytes may need them because something else is gone. Decides nothing about
which artifacts are wanted (`releases`).

    GET /internal/copies                       what this host has, and for how many seconds, one a line
    GET HEAD PUT /internal/copies/<sha256>     the bytes
    POST …                                     store again what is there: 200, else 404
    POST …?fetch=true                          have it, if need be from another host: 200, else 404
    DELETE …?stored_before_s=N                 let it go, unless it was stored again less than N seconds ago
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hmac
import logging
import random
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import httpx

from omni.front.intake import Intake, Upload
from omni.front.requests import Answer, Request
from omni.kernel import clock
from omni.kernel.errors import InvalidInput, NotFound, OmniError
from releases.copies import PATH, CopiesUnavailable, Others
from releases.storage import ArtifactStore

_ROUTE = re.compile(re.escape(PATH) + r"(?:/([0-9a-f]{64}))?")
_SERVED = re.compile(r"/(?:agent/packages|internal/artifacts)/([0-9a-f]{64})")
_CHUNK = 1 << 20
_CONNECT_S, _SILENCE_S = 1.0, 15.0
_AGE = "omni-stored-s"  # how long ago an artifact was stored; a fetched copy is as old to `discard`
_MEDIA_TYPE = "application/x-tar"  # one that the intake takes; what it is, its row says
_log = logging.getLogger("omni.copies")
Result = TypeVar("Result")


def missing(request: Request, answer: Answer) -> str | None:
    """The artifact that a member was asked for and does not have, though whoever asks may have it."""
    found = _SERVED.fullmatch(request.path) if answer.status == 404 and request.method == "GET" else None
    return found[1] if found and b'"artifact_missing"' in answer.body else None


@dataclass(slots=True)
class Copying:
    others: Others
    store: ArtifactStore
    intake: Intake
    _client: httpx.AsyncClient | None = None
    _fetching: dict[str, asyncio.Task[bool]] = field(default_factory=dict)
    _failed: dict[str, float] = field(default_factory=dict)  # hosts that did not take or give, and when

    def takes(self, request: Request) -> bool:
        return _ROUTE.fullmatch(request.path) is not None

    async def answer(self, request: Request) -> Answer:
        """What another member asked for. Raises NotFound to everybody else: there is nothing to be seen."""
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.others.key}".encode()):
            raise NotFound("There is no such path.", next="GET /docs")
        found = _ROUTE.fullmatch(request.path)
        sha256 = found[1] if found else None
        if sha256 is None:
            return await self._list()
        serve: dict[str, Callable[[Request, str], Any]] = {
            "GET": self._give, "HEAD": self._give, "PUT": self._take, "POST": self._keep, "DELETE": self._discard,
        }  # fmt: skip
        if request.method not in serve:
            raise NotFound("There is no such path.")
        answer: Answer = await serve[request.method](request, sha256)
        return answer

    async def spread(self, upload: Upload) -> None:
        """Have as many other hosts as configured keep a copy. Raises CopiesUnavailable when too few can."""
        kept = 0
        for host in self._candidates():
            if kept >= self.others.wanted:
                break
            if await self._send(host, upload):
                kept += 1
        if kept < self.others.wanted:
            wanted = self.others.wanted + 1
            raise CopiesUnavailable(f"{kept + 1} of {wanted} hosts can keep the upload now; nothing was changed.")

    async def fetch(self, sha256: str) -> bool:
        """Get it from any host that has it; True when it is here. Many that want the same one wait for one transfer."""
        if await _aside(self.store.exists, sha256):
            return True
        task = self._fetching.get(sha256)
        if task is None:
            task = self._fetching[sha256] = asyncio.create_task(self._fetch(sha256))
            task.add_done_callback(lambda _: self._fetching.pop(sha256, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        for task in list(self._fetching.values()):
            task.cancel()
        if self._client is not None:
            await self._client.aclose()

    # -- what other members ask of us

    async def _list(self) -> Answer:
        ages = await _aside(self.store.ages)
        text = "".join(f"{sha256} {age:.0f}\n" for sha256, age in ages.items())
        return Answer(200, [("content-type", "text/plain")], text.encode())

    async def _give(self, request: Request, sha256: str) -> Answer:
        path, size = self.store.path(sha256), await _aside(self.store.size, sha256)
        if path is None or size is None:
            raise NotFound("There is no such artifact.", code="artifact_missing")
        age_s = await _aside(self.store.age, sha256) or 0.0
        headers = [("content-type", "application/octet-stream"), ("content-length", str(size)), (_AGE, f"{age_s:.3f}")]
        return Answer(200, headers, stream=_read(path))

    async def _take(self, request: Request, sha256: str) -> Answer:
        await _aside(self.store.check_room)
        upload = await self.intake.receive(request)
        try:
            if upload.sha256 != sha256:
                raise InvalidInput(f"The body's sha256 is {upload.sha256}.", code="digest_mismatch")
            await _aside(self.store.put, upload)
        finally:
            upload.path.unlink(missing_ok=True)
        return Answer(201, [("content-length", "0")])

    async def _keep(self, request: Request, sha256: str) -> Answer:
        if "fetch=true" in request.query:
            kept = await self.fetch(sha256)
        else:
            kept = await _aside(self.store.touch, sha256)
        return Answer(200 if kept else 404, [("content-length", "0")])

    async def _discard(self, request: Request, sha256: str) -> Answer:
        age_s = float(dict(parse_qsl(request.query)).get("stored_before_s", "0"))
        until = clock.now() - dt.timedelta(seconds=age_s)
        gone = await _aside(lambda: self.store.discard(sha256, unless_newer_than=until))
        return Answer(204 if gone else 409, [("content-length", "0")])

    # -- what we ask of them

    async def _send(self, host: str, upload: Upload) -> bool:
        place = f"{PATH}/{upload.sha256}"
        for member in self.others.members(host):
            try:
                kept = await self._http().post(member + place)
                if kept.status_code == 200:
                    return True
                headers = {"content-type": _MEDIA_TYPE, "content-length": str(upload.size)}
                answer = await self._http().put(member + place, headers=headers, content=_read(upload.path))
            except httpx.HTTPError as error:
                self._has_failed(host, error)
                continue
            if answer.status_code == 201:
                return True
            self._has_failed(host, f"it answered {answer.status_code}")
            return False
        return False

    async def _fetch(self, sha256: str) -> bool:
        for host in self._candidates():
            for member in self.others.members(host):
                try:
                    if await self._fetch_from(member, sha256):
                        return True
                    break  # the other members of that host look into the same directory
                except (httpx.HTTPError, OmniError) as error:
                    self._has_failed(host, error)
        return False

    async def _fetch_from(self, member: str, sha256: str) -> bool:
        async with self._http().stream("GET", f"{member}{PATH}/{sha256}") as answer:
            if answer.status_code != 200:
                return False
            age_s = float(answer.headers.get(_AGE, "0"))
            upload = await self.intake.keep(answer.aiter_bytes())
        try:
            if upload.sha256 != sha256:
                _log.error("%s gave other bytes than those of %s", member, sha256)
                return False
            await _aside(lambda: self.store.put(upload, age_s=age_s))
            return True
        finally:
            upload.path.unlink(missing_ok=True)

    def _candidates(self) -> list[str]:
        """The hosts in any order, those that failed lately last."""
        hosts = random.sample(list(self.others.hosts), len(self.others.hosts))
        return sorted(hosts, key=lambda host: self._failed.get(host, 0.0))

    def _has_failed(self, host: str, why: object) -> None:
        self._failed[host] = clock.monotonic()
        _log.warning("the host %s took or gave no copy: %s", host, why or type(why).__name__)

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
            self._client = httpx.AsyncClient(
                verify=self.others.tls, headers=self.others.headers, timeout=timeout, trust_env=False
            )
        return self._client


async def _aside(work: Callable[..., Result], *arguments: Any) -> Result:
    """Disk work, away from the event loop and from Django's threads."""
    return await asyncio.to_thread(work, *arguments)


async def _read(path: Path) -> AsyncIterator[bytes]:
    file = await _aside(lambda: path.open("rb"))
    try:
        while chunk := await _aside(file.read, _CHUNK):
            yield chunk
    finally:
        await _aside(file.close)

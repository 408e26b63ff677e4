"""Concurrent clients on random members, and the exact record of what they asked and were told.

Owns what a client does: choose, ask, repeat by rule (the same Idempotency-Key, another member, after Retry-After), give
up. Everything random comes from the seed. Judges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.cluster.history import Op, Try

_TRIES = 8
_OP_S = 20.0
_REQUEST_S = 8.0
_LAST_S = 25.0
_HOT = 4  # apps that most operations are about


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of what. `pause_s`: mean rest of a client between two operations."""

    clients: int = 6
    pause_s: float = 0.15
    apps: int = 30
    deletes: bool = True
    gives_up: float = 0.15  # how often a client does not repeat what it knows nothing about
    repeats: float = 0.03  # how often it repeats what was acknowledged, as if the answer had been lost


@dataclass(slots=True)
class _Known:
    """What all clients together have been told."""

    index: int = 0
    seen: dict[str, tuple[int, str]] = field(default_factory=dict)  # app → (revision, description) of one answer
    names: list[str] = field(default_factory=list)
    number: int = 0


class Workload:
    """`with Workload(urls, token, seed=1) as work: ...; work.ops` afterwards."""

    def __init__(self, urls: list[str], token: str, seed: int, pace: Pace | None = None) -> None:
        self.urls, self.seed, self.pace = urls, seed, pace or Pace()
        self.ops: list[Op] = []
        self.known = _Known()
        self.scalable: list[str] = []  # deployed apps, which are scaled but never deleted
        self._headers = {"Authorization": f"Bearer {token}"}
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="clients")

    def __enter__(self) -> Workload:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let every client finish what it is at."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_OP_S + _LAST_S)
        if self._failed is not None:
            raise self._failed

    def acknowledged(self) -> list[Op]:
        return [op for op in list(self.ops) if op.is_write and op.verdict == "applied"]

    def wait_for_writes(self, count: int, timeout_s: float = 30.0) -> None:
        """Until so many more writes were acknowledged."""
        before, deadline = len(self.acknowledged()), time.monotonic() + timeout_s
        while len(self.acknowledged()) < before + count:
            if time.monotonic() > deadline or self._failed is not None:
                raise AssertionError(f"no {count} writes were acknowledged within {timeout_s:g} s") from self._failed
            time.sleep(0.02)

    def account(self, since: float) -> str:
        """What was asked since then and what came of it, the latest last: for whoever looks into a failure."""
        asked = [(one, op) for op in list(self.ops) for one in op.tries if max(one.start, one.end) > since]
        lines = [
            f"{one.start - since:7.2f} {(one.end or since) - since:7.2f} {op.kind} at {one.node}: {one.status} "
            f"{one.verdict} {one.code} {one.note}"
            for one, op in sorted(asked, key=lambda found: found[0].start)
        ]
        return "\n".join([f"{len(asked)} requests since, clients failed: {self._failed!r}", *lines[-40:]])

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._failed = error

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=self.pace.clients * 4, max_keepalive_connections=self.pace.clients * 2)
        async with httpx.AsyncClient(
            headers=self._headers, timeout=httpx.Timeout(_REQUEST_S, connect=1.0), limits=limits, trust_env=False
        ) as client:
            await asyncio.gather(*(self._client(number, client) for number in range(self.pace.clients)))

    async def _client(self, number: int, client: httpx.AsyncClient) -> None:
        chance = random.Random(f"{self.seed}-{number}")
        while not self._stop.is_set():
            op = self._choose(chance, number)
            self.ops.append(op)
            await self._carry_out(op, client, chance)
            await asyncio.sleep(chance.expovariate(1 / self.pace.pause_s))

    # -- what to do

    def _choose(self, chance: random.Random, client: int) -> Op:
        known = self.known
        known.number += 1
        name, key = f"o{self.seed}.{known.number}", f"k{self.seed}.{known.number}"
        what = chance.random()
        if len(known.names) < 3 or (what < 0.08 and known.number // 10 < self.pace.apps):
            return Op(name, "create", f"a{self.seed}-{known.number}", client, key, value=name)
        app = self._app(chance)
        if what < 0.45:
            return Op(name, "read", app, client, min_index=known.index if chance.random() < 0.6 else 0)
        if what < 0.85 or (not self.pace.deletes and what > 0.95):
            op = Op(name, "describe", app, client, key, value=name)
            if app in known.seen and chance.random() < 0.7:
                op.if_match, op.expects = known.seen[app]
            return op
        if what < 0.95:
            app = chance.choice(self.scalable) if self.scalable and chance.random() < 0.5 else app
            return Op(name, "scale", app, client, key, value=chance.randint(1, 4))
        if app in known.names[:_HOT]:
            return Op(name, "read", app, client, min_index=known.index)
        return Op(name, "delete", app, client, key)

    def _app(self, chance: random.Random) -> str:
        names = self.known.names
        return chance.choice(names[:_HOT] if chance.random() < 0.7 else names)

    # -- how

    async def _carry_out(self, op: Op, client: httpx.AsyncClient, chance: random.Random) -> None:
        deadline = time.monotonic() + _OP_S
        for number in range(1, _TRIES + 1):
            url = chance.choice(self.urls)
            one = Try(f"{op.id}.{number}", url.removeprefix("http://"), time.monotonic(), 0.0)
            op.tries.append(one)
            retry_after = await self._ask(op, one, url, client)
            one.end = time.monotonic()
            if one.verdict == "applied" and op.is_write and number == 1 and chance.random() < self.pace.repeats:
                continue
            if one.verdict == "applied" or (400 <= one.status < 500 and one.verdict == "refused"):
                break
            if op.kind == "read" or time.monotonic() > deadline or (self._stop.is_set() and number > 2):
                break
            if one.verdict == "unknown" and chance.random() < self.pace.gives_up:
                break
            await asyncio.sleep(min(retry_after, 1.0) * chance.uniform(0.2, 1.0))
        self._learn(op)

    async def _ask(self, op: Op, one: Try, url: str, client: httpx.AsyncClient) -> float:
        """One request; what it answered goes into the try. Seconds to wait before the next."""
        headers = {"Request-Id": one.rid}
        if op.key:
            headers["Idempotency-Key"] = op.key
        if op.if_match is not None:
            headers["If-Match"] = f'"{op.if_match}"'
        method, path, body = _request(op)
        try:
            answer = await client.request(method, url + path, headers=headers, json=body)
        except httpx.HTTPError as error:
            one.note = type(error).__name__
            if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
                one.status, one.outcome, one.code = 503, "not-applied", "not_sent"  # nothing of it was sent
            return 0.2
        _note(op, one, answer)
        with contextlib.suppress(ValueError):
            return float(answer.headers.get("retry-after", "0.2"))
        return 0.2

    def _learn(self, op: Op) -> None:
        known = self.known
        known.index = max(known.index, op.index)
        if op.verdict != "applied":
            return
        if op.kind == "create":
            known.names.append(op.app)
        if op.kind == "delete" and op.app in known.names:
            known.names.remove(op.app)
        if op.kind in ("create", "describe", "read") and op.revision is not None and op.value is not None:
            known.seen[op.app] = (op.revision, str(op.value))


def _request(op: Op) -> tuple[str, str, dict[str, Any] | None]:
    if op.kind == "create":
        return "POST", "/app/create", {"name": op.app, "description": op.value, "memory_mb": 32}
    if op.kind == "describe":
        return "PATCH", f"/app/{op.app}", {"description": op.value}
    if op.kind == "scale":
        return "POST", f"/app/{op.app}/scale", {"instances": op.value}
    if op.kind == "delete":
        return "DELETE", f"/app/{op.app}", None
    return "GET", f"/app/{op.app}/info" + (f"?min_index={op.min_index}" if op.min_index else ""), None


def _note(op: Op, one: Try, answer: httpx.Response) -> None:
    one.status, headers = answer.status_code, answer.headers
    one.outcome = headers.get("omni-outcome", "")
    one.index = int(headers.get("omni-index") or 0)
    one.replayed = headers.get("omni-replayed") == "true"
    one.answered_by = headers.get("omni-node", "")
    body: Any = None
    with contextlib.suppress(ValueError):
        body = answer.json()
    if one.status >= 400:
        one.code = str(body.get("code", "")) if isinstance(body, dict) else ""
        op.absent = op.kind == "read" and one.status == 404
        return
    if isinstance(body, dict) and op.kind in ("create", "describe", "read"):
        op.revision, op.app_id = body.get("revision"), body.get("id")
        if op.kind == "read":
            op.value = body.get("description")

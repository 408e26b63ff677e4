"""What happens to a request on this member, in the order in which it is decided.

    health/live → here · stream → following · upload → intake, then Django · write → the leader, here or forwarded
    waiting read → watching · everything else → Django

Owns that order and nothing else. Forwarding is decided before anything reads the body (DECISIONS 10).
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from observing import tracing
from omni.front import following, intake, problems, sharing, traced, watching
from omni.front.copying import Copying, missing
from omni.front.door import Door
from omni.front.forwarding import Forwarder, Times, buffered, settled, was_refused
from omni.front.hop import HEADER, Hop
from omni.front.leaders import Leaders
from omni.front.requests import Answer, BodyTooLarge, ClientGone, ClientIdle, Receive, Request, Scope, Send
from omni.front.streaming_keys import StreamingKeys
from omni.front.talks import Talks
from omni.kernel import measures
from omni.kernel.config import Config
from omni.kernel.config_members import parse
from omni.kernel.context import is_request_id, new_request_id, request_id
from omni.kernel.errors import Malformed, NotFound, NotLeader, OmniError, StaleRead, TooLarge

# Telemetry is append-only and owned by who reports it: any member takes it (ARCHITECTURE, "How a write travels" 5).
_LOCAL_WRITES = re.compile(r"/agent/(logs|samples|requests)|/internal/builds/\d+/logs|/admin/login/|/admin/logout/")
_LARGE_BODIES = re.compile(r"/agent/.*|/internal/.*")
_LARGE_BODY = 32 << 20
_PACKING_MB = 256  # what a tar adds to the bytes of a tree of many files
# Reads that never wait for the database; on threads of their own they do not wait for those that do, either.
_ASIDE = re.compile(r"/health(/ready)?|/cluster/(status|members)")
_ASIDE_THREADS = 2
_DISCARDED, _DISCARD_S = 64 << 20, 2.0
_FIRST_PAUSE_S = 0.02
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_LOOPBACKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a server that listens everywhere is reached
_log = logging.getLogger("omni.front")


class Front:
    """The ASGI application. Everything heavy is made on the first event, in the worker process."""

    def __init__(self) -> None:
        self._ready = False
        self._copying: Copying | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._ready:
            self._start()
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._talks.take(scope, receive, send)

    def _start(self) -> None:
        from omni.front.django_threads import DjangoThreads

        self._django, self._aside = DjangoThreads(_threads()), DjangoThreads(_ASIDE_THREADS)
        from django.conf import settings

        from consensus import gate
        from omni.front.route_names import name_of
        from omni.kernel import internal_tokens, keys
        from omni.rest import index
        from omni.rest.middleware import leader_name

        config = settings.CONFIG
        self._config = config
        tracing.configure("web", config.me.id)
        self._index, self._leader_name, self._route_of = index, leader_name, name_of
        times, limits = config.timings, config.limits
        hop = Hop(keys.derive(keys.cluster_secret(config), "forward"), config.me.id)
        self._hop, self._leaders = hop, Leaders(gate.lease(), config.me.netloc)
        waits = Times(times.write_wait_s, times.forward_timeout_s, times.upload_idle_s)
        self._door, context = _members_tls(config)
        self._forwarder = Forwarder(self._leaders, hop, waits, lambda at: config.reach(parse(at)), context)
        packages = (limits.build_disk_mb + _PACKING_MB) << 20
        self._intake = intake.Intake(
            config.artifacts_path / "incoming", limits.upload_max_bytes, times.upload_idle_s, packages,
            limits.snapshot_max_bytes + (limits.snapshot_max_bytes >> 3) + (_PACKING_MB << 20), _check_disk,
        )  # fmt: skip
        self._intake.sweep()
        self._copying = _copying(config, self._intake)
        self._streaming = StreamingKeys(config.node_dir(config.me) / "uploading")
        self._streaming.sweep()
        self._watch = watching.IndexWatch(lambda: self._django.run(index.exact))
        self._watching = watching.Watching(self._watch, times.watch_max_s, times.index_wait_s)
        self._following = following.Following(self._ask, sharing.Hub(self._newest))
        own = internal_tokens.mint("node", config.me.id, keys.cluster_secret(config))
        self._talks = Talks(self._asked, own, config.web.public_url)
        self._ready = True

    async def _newest(self, kind: str, ids: list[int]) -> dict[int, int]:
        """What tells the streams that there is something to read: the write index, the newest batches of logs."""
        from instances.telemetry import arrivals

        if kind == "events":
            return {0: await self._django.run(self._index.exact)}
        found: dict[int, int] = await self._django.run(arrivals.numbers_of, ids)
        return found

    async def _asked(self, request: Request) -> Answer:
        """The answer to a request of this member's own; errors are answers, too."""
        _name(request)
        try:
            return await self._answer(request)
        except OmniError as error:
            return self._refuse(request, error)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if await self._open_door(send):
                    await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._door is not None:
                    await self._door.close()
                await self._forwarder.close()
                if self._copying is not None:
                    await self._copying.close()
                self._django.close()
                self._aside.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _open_door(self, send: Send) -> bool:
        """A member that the other hosts cannot reach must not look as if it worked: its supervisor tries again."""
        try:
            if self._door is not None:
                await self._door.open()
        except OSError as error:
            await send({"type": "lifespan.startup.failed", "message": f"the port for other hosts: {error}"})
            return False
        return True

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.of(scope, receive)
        begun = time.perf_counter()
        _name(request)
        with traced.request_span(request, self._route_of(request.path), self._config.me.id) as span:
            answer = await self._answer_or_refuse(request)
            traced.answered(span, answer)
        took_s = time.perf_counter() - begun
        self._count(request, answer, took_s)
        if request.is_write and not traced.OURS.match(request.path):
            where = "forwarded here" if request.extra.get("omni.forwarded") else "received"
            _log.info("%s %s (%s): %d in %.0f ms", request.method, request.path, where, answer.status, took_s * 1000)
        if answer.status >= 400:
            await request.discard(_DISCARDED, _DISCARD_S)
        if answer.header("content-type").startswith("text/event-stream"):
            await _while_heard(request, answer.send(send))
        else:
            await answer.send(send, head=request.method == "HEAD")

    async def _answer_or_refuse(self, request: Request) -> Answer:
        try:
            return await self._answer(request)
        except OmniError as error:
            return self._refuse(request, error)
        except BodyTooLarge:
            return self._refuse(request, TooLarge("The body is larger than this endpoint takes."))
        except (ClientGone, ClientIdle):
            return self._refuse(request, Malformed("The body did not come whole.", code="truncated"))
        except Exception:
            _log.exception("the front failed on %s %s", request.method, request.path)
            return self._refuse(request, OmniError("Something went wrong on our side."))

    def _count(self, request: Request, answer: Answer, took_s: float) -> None:
        """A request counts where it came in. How long somebody wanted to wait says nothing about us."""
        if request.extra.get("omni.forwarded"):
            return
        route = self._route_of(request.path)
        method = request.method if request.method in _METHODS else "other"
        measures.requests.labels(method, route, measures.status_class(answer.status)).inc()
        if answer.stream is None and "wait=" not in request.query and "prefer" not in request.headers:
            measures.request_seconds.labels(route).observe(took_s)

    async def _answer(self, request: Request) -> Answer:
        forwarded = self._verify_hop(request)
        request.extra["omni.forwarded"] = forwarded
        if not request.is_routable:
            raise NotFound("There is no such path.", next="GET /docs")
        if request.path == "/health/live" and not request.is_write:
            return Answer(200, [("content-type", "application/json")], b'{"status":"live"}')
        if not request.is_write and not request.query and _ASIDE.fullmatch(request.path):
            return await self._aside.call(request)
        if self._copying is not None and self._copying.takes(request):
            return await self._copying.answer(request)
        if following.is_stream(request):
            return await self._following.stream(request)
        if not request.is_write:
            return await self._read(request)
        if _LOCAL_WRITES.fullmatch(request.path):
            return await self._ask(request)
        answer = await self._write(request, forwarded)
        if answer.status == 202 and watching.preferred_wait(request):
            return await self._watching.until_end(request, answer, self._ask)
        return answer

    async def _write(self, request: Request, forwarded: bool) -> Answer:
        """The leader's answer, given here or there."""
        leads = await self._leads(request, self._forwarder.deadline())
        if forwarded and not leads:
            raise NotLeader(None)  # one hop only: the member that sent it asks again
        if intake.is_upload(request):
            return await (self._upload(request) if leads else self._upload_there(request))
        if not leads and self._is_streamed(request):
            return await self._forwarder.forward(request, None) or await self._ask(request)
        body = await self._body(request)
        if forwarded:
            return await self._django.call(request, body)
        return await self._write_buffered(request, body, leads)

    async def _write_buffered(self, request: Request, body: bytes, leads: bool) -> Answer:
        """A body in memory follows the leadership when it moves: what the fence refused here is asked for there."""
        deadline, pause = self._forwarder.deadline(), _FIRST_PAUSE_S
        while True:
            answer = None if leads else await self._forwarder.forward(request, body)
            if answer is not None:
                return answer
            answer = await self._django.call(request, body)
            if not was_refused(answer) or time.monotonic() >= deadline:
                return settled(request, answer)
            await asyncio.sleep(pause)
            pause *= 2
            leads = await self._leads(request, deadline)

    async def _leads(self, request: Request, deadline: float) -> bool:
        """Whether this member leads; waits for a leader. Raises NoLeader."""
        return await self._forwarder.leader_for(request, deadline) == self._leaders.me

    async def _read(self, request: Request) -> Answer:
        if "min_index=" in request.query:
            await self._wait_for_min_index(request)
        if "wait=" in request.query and "index=" in request.query:
            return await self._watching.read(request, self._ask)
        answer = await self._ask(request)
        sha256 = missing(request, answer) if self._copying is not None else None
        if self._copying is not None and sha256 is not None and await self._copying.fetch(sha256):
            return await self._ask(request)
        return answer

    async def _wait_for_min_index(self, request: Request) -> None:
        wanted = watching.whole_number(request, "min_index")
        if wanted and not await self._watching.reached(wanted):
            raise StaleRead(f"This member has not seen index {wanted} yet.")

    async def _upload_there(self, request: Request) -> Answer:
        """Forwarded as it comes; what can be refused without the body is refused here, before it travels."""
        refusal = await self._judge(request)
        if refusal is not None:
            return refusal
        return await self._forwarder.forward(request, None) or await self._upload(request)

    async def _upload(self, request: Request) -> Answer:
        """Django judges first (who, which app, which version), takes over the file afterwards."""
        refusal = await self._judge(request)
        if refusal is not None:
            return refusal
        with self._streaming.hold(request.extra.get("omni.key", "")):
            upload = await self._intake.receive(request)
        try:
            refusal = await self._copy(request, upload)
            if refusal is not None:
                return refusal
            taking = replace(request, extra={**request.extra, "omni.phase": "take", "omni.upload": upload})
            return await self._django.call(taking)
        finally:
            upload.path.unlink(missing_ok=True)  # still there only if Django did not take it

    async def _copy(self, request: Request, upload: intake.Upload) -> Answer | None:
        """With several hosts: copies elsewhere, before anybody is told that it was taken; Django's refusal, if any."""
        if self._copying is None:
            return None
        inspecting = replace(request, extra={**request.extra, "omni.phase": "inspect", "omni.upload": upload})
        answer = await self._django.call(inspecting)
        if answer.status != 204:
            return answer
        if answer.header("Omni-Keep") == "yes":
            await self._copying.spread(upload)
        return None

    async def _judge(self, request: Request) -> Answer | None:
        """Django's refusal of an upload whose body nobody has read; None when it may come."""
        preflight = replace(request, extra={**request.extra, "omni.phase": "preflight"})
        answer = await self._django.call(preflight)
        if answer.status >= 300:
            return answer
        self._intake.check(request)
        request.extra["omni.key"] = answer.header("Omni-Key-Scope")
        return None

    async def _ask(self, request: Request) -> Answer:
        return await self._django.call(request, await self._body(request))

    async def _body(self, request: Request) -> bytes:
        limit = _LARGE_BODY if self._is_large(request) else self._config.limits.json_body_bytes
        return await buffered(request, limit, self._config.timings.upload_idle_s)

    def _is_large(self, request: Request) -> bool:
        return _LARGE_BODIES.fullmatch(request.path) is not None

    def _is_streamed(self, request: Request) -> bool:
        """Too large to be kept while it is forwarded; what is small can be repeated."""
        length = request.headers.get("content-length", "")
        return self._is_large(request) and not (length.isdigit() and int(length) <= self._config.limits.json_body_bytes)

    def _verify_hop(self, request: Request) -> bool:
        """Whether a member sent this on. Only a hop that is proven says who the client is; any hop is the last one."""
        value = request.headers.pop(HEADER, None)
        for name in ("x-forwarded-for", "x-forwarded-host", "forwarded"):
            request.headers.pop(name, None)
        if value is None:
            return False
        request.client = self._hop.verify(request, value) or request.client
        return True

    def _refuse(self, request: Request, error: OmniError) -> Answer:
        me, rid = self._config.me.id, request.headers.get("request-id", "")[:64]
        answer = (
            problems.page(error, me, request, rid) if problems.is_page(request) else problems.answer(error, me, rid)
        )
        answer.headers += [("Omni-Leader", self._leader_name()), ("Omni-Index", str(self._index.seen(0)))]
        return answer


def _name(request: Request) -> None:
    """Every request has its id before anything is done for it, so that the member it is forwarded to knows it, too."""
    given = request.headers.get("request-id") or tracing.request_id_of(request.headers.get(tracing.HEADER, ""))
    request.headers["request-id"] = given if is_request_id(given) else new_request_id()
    request_id.set(request.headers["request-id"])  # of this request's own task


async def _while_heard(request: Request, sending: Coroutine[Any, Any, None]) -> None:
    """Send a stream for as long as its client is there: a send to one that is gone says nothing."""
    sent, gone = asyncio.ensure_future(sending), asyncio.ensure_future(request.gone())
    try:
        await asyncio.wait({sent, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sent, gone):
            task.cancel()
        await asyncio.gather(sent, gone, return_exceptions=True)


def _members_tls(config: Config) -> tuple[Door | None, ssl.SSLContext | None]:
    """With several hosts: the door for the others, and what proves us to theirs."""
    if not config.several_hosts:
        return None, None
    from consensus import identity

    mine = identity.of(config)
    context = identity.client_context(mine)
    context.check_hostname = True  # the address that we connect to stands in the member's certificate
    listen = config.listen_address
    inside = (_LOOPBACKS.get(listen, listen), config.me.port)
    shared = config.web.workers > 1
    return Door(identity.server_context(mine), listen, config.member_port(config.me), inside, shared), context


def _check_disk(folder: Path) -> None:
    from releases.storage import check_disk

    check_disk(folder)


def _copying(config: Config, taken: intake.Intake) -> Copying | None:
    """With several hosts and no bucket: what keeps copies."""
    from releases.copies import others_of
    from releases.storage import store

    others = others_of(config)
    return Copying(others, store(), taken) if others else None


def _threads() -> int:
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    from django.conf import settings

    return int(settings.CONFIG.web.threads)

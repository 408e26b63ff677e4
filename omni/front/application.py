"""What happens to a request on this member, in the order in which it is decided.

    health/live → here · stream → following · upload → intake, then Django · write → the leader, here or forwarded
    waiting read → watching · everything else → Django

Owns that order and nothing else. Forwarding is decided before anything reads the body (DECISIONS 10).
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace

from omni.front import following, intake, watching
from omni.front.forwarding import HEADER, Forwarder, Hop
from omni.front.problems import answer as problem_answer
from omni.front.requests import Answer, BodyTooLarge, ClientGone, ClientIdle, Receive, Request, Scope, Send
from omni.front.streaming_keys import StreamingKeys
from omni.kernel.errors import Malformed, NotFound, NotLeader, OmniError, StaleRead, TooLarge

# Telemetry is append-only and owned by who reports it: any member takes it (ARCHITECTURE, "How a write travels" 5).
_LOCAL_WRITES = re.compile(r"/agent/(logs|samples|requests)|/internal/builds/\d+/logs|/admin/login/|/admin/logout/")
_LARGE_BODIES = re.compile(r"/agent/.*|/internal/.*")
_LARGE_BODY = 32 << 20
_DISCARDED, _DISCARD_S = 64 << 20, 2.0
_log = logging.getLogger("omni.front")


class Front:
    """The ASGI application. Everything heavy is made on the first event, in the worker process."""

    def __init__(self) -> None:
        self._ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._ready:
            self._start()
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    def _start(self) -> None:
        from omni.front.django_threads import DjangoThreads

        self._django = DjangoThreads(_threads())
        from django.conf import settings

        from consensus import gate
        from omni.kernel import keys
        from omni.rest import index
        from omni.rest.middleware import leader_name

        config = settings.CONFIG
        self._config, self._lease = config, gate.lease()
        self._index, self._leader_name = index, leader_name
        self._hop = Hop(keys.derive(keys.cluster_secret(config), "forward"), config.me.id)
        times, limits = config.timings, config.limits
        self._forwarder = Forwarder(
            self._lease, self._hop, config.me.netloc, times.write_wait_s, times.forward_timeout_s,
            times.upload_idle_s, limits.json_body_bytes,
        )  # fmt: skip
        self._intake = intake.Intake(config.artifacts_path / "incoming", limits.upload_max_bytes, times.upload_idle_s)
        self._intake.sweep()
        self._streaming = StreamingKeys(config.node_dir(config.me) / "uploading")
        self._streaming.sweep()
        self._watch = watching.IndexWatch(lambda: self._django.run(index.exact))
        self._watching = watching.Watching(self._watch, times.watch_max_s, times.index_wait_s)
        self._following = following.Following(self._ask, self._watch)
        self._ready = True

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._forwarder.close()
                self._django.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.of(scope, receive)
        try:
            answer = await self._answer(request)
        except OmniError as error:
            answer = self._refuse(request, error)
        except BodyTooLarge:
            answer = self._refuse(request, TooLarge("The body is larger than this endpoint takes."))
        except (ClientGone, ClientIdle):
            answer = self._refuse(request, Malformed("The body did not come whole.", code="truncated"))
        except Exception:
            _log.exception("the front failed on %s %s", request.method, request.path)
            answer = self._refuse(request, OmniError("Something went wrong on our side."))
        if answer.status >= 400:
            await request.discard(_DISCARDED, _DISCARD_S)
        await answer.send(send, head=request.method == "HEAD")

    async def _answer(self, request: Request) -> Answer:
        forwarded = self._verify_hop(request)
        if not request.is_routable:
            raise NotFound("There is no such path.", next="GET /docs")
        if request.path == "/health/live" and not request.is_write:
            return Answer(200, [("content-type", "application/json")], b'{"status":"live"}')
        if following.is_stream(request):
            return await self._following.stream(request)
        if not request.is_write:
            return await self._read(request)
        if not _LOCAL_WRITES.fullmatch(request.path):
            relayed = await self._at_leader(request, forwarded)
            if relayed is not None:
                return relayed
        if intake.is_upload(request):
            answer = await self._upload(request)
        else:
            answer = await self._ask(request)
        if answer.status == 202 and watching.preferred_wait(request):
            return await self._watching.until_end(request, answer, self._ask)
        return answer

    async def _at_leader(self, request: Request, forwarded: bool) -> Answer | None:
        """The leader's answer, or None when that is this member."""
        if forwarded and await self._forwarder.leader() is not None:
            raise NotLeader(None)  # one hop only: the member that sent it asks again
        if await self._forwarder.leader() is None:
            return None
        if intake.is_upload(request):  # what can be refused without the body is refused here, before it travels
            refusal = await self._judge(request)
            if refusal is not None:
                return refusal
        return await self._forwarder.forward(request, stream=intake.is_upload(request) or self._is_large(request))

    async def _read(self, request: Request) -> Answer:
        if "min_index=" in request.query:
            await self._wait_for_min_index(request)
        if "wait=" in request.query and "index=" in request.query:
            return await self._watching.read(request, self._ask)
        return await self._ask(request)

    async def _wait_for_min_index(self, request: Request) -> None:
        wanted = watching.whole_number(request, "min_index")
        if wanted and not await self._watching.reached(wanted):
            raise StaleRead(f"This member has not seen index {wanted} yet.")

    async def _upload(self, request: Request) -> Answer:
        """Django judges first (who, which app, which version), takes over the file afterwards."""
        refusal = await self._judge(request)
        if refusal is not None:
            return refusal
        with self._streaming.hold(request.extra.get("omni.key", "")):
            upload = await self._intake.receive(request)
        try:
            taking = replace(request, extra={**request.extra, "omni.phase": "take", "omni.upload": upload})
            return await self._django.call(taking)
        finally:
            upload.path.unlink(missing_ok=True)  # still there only if Django did not take it

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
        body = request.extra.pop("omni.body", None)
        if body is None:
            limit = _LARGE_BODY if self._is_large(request) else self._config.limits.json_body_bytes
            body = await request.body(limit, self._config.timings.upload_idle_s)
        return await self._django.call(request, body)

    def _is_large(self, request: Request) -> bool:
        return _LARGE_BODIES.fullmatch(request.path) is not None

    def _verify_hop(self, request: Request) -> bool:
        """Whether a member of ours sent this on; the header is stripped from everybody else's requests."""
        value = request.headers.pop(HEADER, None)
        for name in ("x-forwarded-for", "x-forwarded-host", "forwarded"):
            request.headers.pop(name, None)
        client = self._hop.verify(request, value) if value else None
        if client is None:
            return False
        request.client = client
        return True

    def _refuse(self, request: Request, error: OmniError) -> Answer:
        answer = problem_answer(error, self._config.me.id, request.headers.get("request-id", "")[:64])
        answer.headers += [("Omni-Leader", self._leader_name()), ("Omni-Index", str(self._index.seen(0)))]
        return answer


def _threads() -> int:
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")
    from django.conf import settings

    return int(settings.CONFIG.web.threads)

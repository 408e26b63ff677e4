"""Django on threads that live as long as the process, so that each keeps its database connections.

Owns the translation between a front `Request` and Django's WSGI handler. Nothing that waits may run here.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, cast

from django.conf import settings

from observing import tracing
from omni.front.requests import Answer, Request
from omni.kernel import measures
from omni.kernel.context import on_behalf_of
from omni.kernel.errors import Malformed

_STREAM_CHUNK = 1 << 18


class DjangoThreads:
    """`threads` requests are computed at once; more wait in line."""

    def __init__(self, threads: int) -> None:
        from omni.front.connections import caught_up, check_idle
        from omni.wsgi import application  # sets Django up, which the rest needs

        self._handler, self._check_idle_connections, self._caught_up = application, check_idle, caught_up
        self._lean: Any = import_module(settings.OMNI_LEAN) if settings.OMNI_LEAN else None
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="django")

    async def call(self, request: Request, body: bytes = b"") -> Answer:
        """Django's answer. Exceptions inside Django are already problems."""
        loop = asyncio.get_running_loop()
        environ = _environ(request, body)
        with measures.in_django.track_inprogress():
            response = await loop.run_in_executor(self._pool, self._respond, environ, tracing.here())
        headers = [(name, value) for name, value in response.items()]
        headers += [("set-cookie", cookie.OutputString()) for cookie in response.cookies.values()]
        if response.streaming:
            return Answer(response.status_code, headers, stream=self._stream(response))
        return Answer(response.status_code, headers, response.content)

    def _respond(self, environ: dict[str, Any], span: str) -> Any:
        self._check_idle_connections()
        request_id = environ.get("HTTP_REQUEST_ID", "")
        with on_behalf_of(request_id), self._caught_up(environ), _web_span(span):
            return self._answered(environ)

    def _answered(self, environ: dict[str, Any]) -> Any:
        if self._lean is not None and self._lean.takes(environ):
            return self._lean.respond(environ)
        try:
            response = cast(Any, self._handler)(environ, lambda *_args: None)
        except ValueError as error:  # before any view: what a view raises is an answer already
            raise Malformed("The Content-Type cannot be read.") from error
        if not response.streaming:
            response.close()  # ends the request: Django checks its connections here, on this thread
        return response

    async def _stream(self, response: Any) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        chunks = iter(cast(Iterable[bytes], response.streaming_content))
        try:
            while (chunk := await loop.run_in_executor(self._pool, next, chunks, None)) is not None:
                yield chunk
        finally:
            await loop.run_in_executor(self._pool, response.close)

    async def run(self, function: Any, *arguments: Any) -> Any:
        """Run something of ours that needs the database, on one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._checked, function, *arguments)

    def _checked(self, function: Any, *arguments: Any) -> Any:
        self._check_idle_connections()
        return function(*arguments)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _web_span(parent: str) -> AbstractContextManager[Any]:
    """Below the front's span, which is another thread's."""
    return tracing.span("web", parent=parent) if parent else tracing.quiet()


def _environ(request: Request, body: bytes) -> dict[str, Any]:
    host, port = request.server
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        # WSGI wants the path's bytes as latin-1
        "PATH_INFO": request.path.encode().decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.client,
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": None,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        if name == "content-type":
            environ["CONTENT_TYPE"] = value
        elif name != "content-length" and "_" not in name:  # a header with _ could pose as another one
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    environ.update(request.extra)
    return environ

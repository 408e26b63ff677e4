"""The span of a request at this member: what is traced, and what it hangs from.

Owns the choice alone. Agents and build workers report all the time; only what they say within a trace is traced.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any

from observing import tracing
from omni.front import hop
from omni.front.requests import Answer, Request

OURS = re.compile(r"/(agent|internal)/")  # what nodes and workers report all the time
_UNTRACED = re.compile(r"/static/|/health|/metrics$")


def request_span(request: Request, route: str, node: str) -> AbstractContextManager[Any]:
    """Before anything is done for it; the request's id is known."""
    if not tracing.on():
        return tracing.quiet()
    parent, ours = request.headers.get(tracing.HEADER, ""), OURS.match(request.path) is not None
    if _UNTRACED.match(request.path) or (ours and not parent):
        return tracing.quiet()
    forwarded = hop.HEADER in request.headers
    return tracing.span(
        f"{request.method} {route}",
        kind="server",
        parent=parent,
        first=not forwarded and not ours,
        **{"http.request.method": request.method, "http.route": route, "url.path": request.path, "omni.node": node},
    )


def answered(span: Any, answer: Answer) -> None:
    """What came of it. A refusal is an answer; a failure of ours is an error."""
    if span is None:
        return
    from opentelemetry.trace import StatusCode

    span.set_attribute("http.response.status_code", answer.status)
    if answer.status >= 500:
        span.set_status(StatusCode.ERROR)

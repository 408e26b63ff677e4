"""Problems that the front answers itself, before or instead of Django."""

from __future__ import annotations

from django.template.loader import render_to_string

from omni.front.requests import Answer, Request
from omni.kernel.context import new_request_id, request_id
from omni.kernel.errors import OmniError
from omni.rest import problem
from omni.rest.rendering import dumps

_CONSOLE = "/admin/"


def answer(error: OmniError, node: str, rid: str = "") -> Answer:
    """The error as problem+json with the headers that every answer has."""
    rid = rid or new_request_id()
    body = dumps(_body(error, rid))
    return Answer(error.status, _headers(error, problem.MEDIA_TYPE, body, rid, node), body)


def is_page(request: Request) -> bool:
    """Whether a browser opens a page of the console or sends a whole form of it; its scripts are told in JSON."""
    headers = request.headers
    return (
        request.path.startswith(_CONSOLE)
        and "text/html" in headers.get("accept", "")
        and headers.get("sec-fetch-mode", "navigate") == "navigate"
    )


def page(error: OmniError, node: str, request: Request, rid: str = "") -> Answer:
    """The same, for somebody who reads it in a browser: what is wrong, whether anything was done, what to do next."""
    rid = rid or new_request_id()
    reads = request.method in ("GET", "HEAD")
    values = {"problem": _body(error, rid), "node": node, "reads": reads}
    body = render_to_string("console/away.html", values).encode()
    headers = _headers(error, "text/html; charset=utf-8", body, rid, node)
    return Answer(error.status, [*headers, ("cache-control", "no-store")], body)


def _body(error: OmniError, rid: str) -> dict[str, object]:
    token = request_id.set(rid)
    try:
        return problem.body(error)
    finally:
        request_id.reset(token)


def _headers(error: OmniError, media_type: str, body: bytes, rid: str, node: str) -> list[tuple[str, str]]:
    return [("content-type", media_type), ("content-length", str(len(body))), ("Request-Id", rid),
            ("Omni-Node", node), *problem.headers(error).items()]  # fmt: skip

"""What every answer carries: request id, node, leader, and the write index that it reflects.

Owns those headers and the request's context variables. Reads take the index first and the data after it, so the
index is a lower bound (DECISIONS 7).
"""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from consensus import gate
from consensus.lease import ConsensusUnavailable, Held, NotHeld
from omni.kernel.context import is_request_id, new_request_id, request_id
from omni.rest import index

# No page asks another host for anything (Redoc would, for its maker's logo), and none can be framed.
_PAGES = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_CONSOLE = "default-src 'self'; img-src 'self' data:"
_POLICY = "{}; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
_PLAIN = ("/static/", "/admin/", "/health", "/cluster/")  # these say by themselves what they reflect, or nothing


def client_address(request: HttpRequest) -> str:
    """The caller's address; behind a forward the one that the follower saw (omni.front verifies it)."""
    return str(request.META.get("REMOTE_ADDR", ""))


def leader_name() -> str:
    """`host:port` of the leader as this member knows it, or an empty string."""
    try:
        answer = gate.lease().current()
    except ConsensusUnavailable:
        return ""
    if isinstance(answer, Held):
        return str(settings.CONFIG.me.netloc)
    assert isinstance(answer, NotHeld)  # noqa: S101
    return answer.leader or ""


def _index_before(request: HttpRequest) -> int | None:
    """What the answer will reflect at least. A write asks for nothing: one that succeeds has a number of its own."""
    known = index.seen(0) if request.method not in ("GET", "HEAD", "OPTIONS") else 0
    return known or index.recent()


class RequestContextMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._node = settings.CONFIG.me.id

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_REQUEST_ID", "")
        rid = given if is_request_id(given) else new_request_id()
        token = request_id.set(rid)
        if request.encoding is not None:  # the Content-Type's charset, by which Django would read the query too
            request.encoding = "utf-8"
        try:
            before = None if request.path_info.startswith(_PLAIN) else _index_before(request)
            response = self._get_response(request)
        finally:
            request_id.reset(token)
        headers = response.headers
        headers["Request-Id"] = rid
        headers["Omni-Node"] = self._node
        headers["Omni-Leader"] = leader_name()
        if headers.get("Content-Type", "").startswith("text/html"):
            console = request.path_info.startswith("/admin/")
            headers.setdefault("Content-Security-Policy", _POLICY.format(_CONSOLE if console else _PAGES))
        if before is not None and "Omni-Index" not in headers:
            headers["Omni-Index"] = str(before)
        if request.method not in ("GET", "HEAD", "OPTIONS") and "Omni-Outcome" not in headers:
            headers["Omni-Outcome"] = "not-applied" if response.status_code >= 400 else "applied"
        return response

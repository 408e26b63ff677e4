"""The reads that dashboards ask for again and again: past Django's handler, through the same view.

Owns which paths take the shortcut. It skips the middleware that such a request has no use for (sessions, messages,
CSRF, static files) and the walk through the URL map; authentication, scopes, access, problems and the headers of every
answer are the view's and `RequestContextMiddleware`'s as ever. Only with a bearer token: a session needs the long way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse

from instances.api import InstanceViewSet
from omni.api.apps import AppViewSet
from omni.rest.middleware import RequestContextMiddleware

_PATH = re.compile(r"/app/([^/]+)/(metrics|info|instances)")
_VIEWS: dict[str, Callable[..., Any]] = {
    "metrics": AppViewSet.as_view({"get": "metrics"}),
    "info": AppViewSet.as_view({"get": "info"}),
    "instances": InstanceViewSet.as_view({"get": "list"}),
}


def _view(request: HttpRequest) -> HttpResponse:
    found = _PATH.fullmatch(request.path_info)
    assert found is not None  # noqa: S101 - `takes` has seen it
    response: HttpResponse = _VIEWS[found[2]](request, app=found[1])
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Length"] = str(len(response.content))
    return response


_answer = RequestContextMiddleware(_view)


def takes(environ: dict[str, Any]) -> bool:
    return (
        environ["REQUEST_METHOD"] == "GET"
        and "HTTP_AUTHORIZATION" in environ
        and _PATH.fullmatch(environ["PATH_INFO"]) is not None
    )


def respond(environ: dict[str, Any]) -> HttpResponse:
    return _answer(WSGIRequest(environ))

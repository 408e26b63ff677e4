"""Requests that come again and again, past Django's handler: through the same view, without what they have no use for.

Owns which requests take the shortcut: those with a bearer token for an action that its ViewSet calls `lean`
(`omni.rest.lean`). It skips the middleware for browsers (sessions, messages, CSRF, static files) and the walk through
the URL map; authentication, scopes, access, problems and the headers of every answer are the view's and
`RequestContextMiddleware`'s as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, get_resolver

from omni.rest.lean import LeanViewSet
from omni.rest.middleware import RequestContextMiddleware
from omni.sql_trace import SqlTraceMiddleware

_ROUTE = "omni.lean"  # where the environ keeps what `takes` found


@dataclass(slots=True)
class _Routes:
    """Plain paths by name, the others as patterns; each with its view and the actions that are lean."""

    plain: dict[str, tuple[type[LeanViewSet], dict[str, str]]] = field(default_factory=dict)
    patterns: list[tuple[Any, type[LeanViewSet], dict[str, str]]] = field(default_factory=list)

    def add(self, route: URLPattern) -> None:
        view = getattr(route.callback, "cls", None)
        if view is None or not issubclass(view, LeanViewSet):
            return
        given: dict[str, str] = getattr(route.callback, "actions", {})
        actions = {method.upper(): action for method, action in given.items() if action in view.lean}
        if not actions:
            return
        if route.pattern.converters:
            self.patterns.append((route.pattern, view, actions))
        else:
            self.plain["/" + str(route.pattern)] = (view, actions)

    def find(self, method: str, path: str) -> tuple[type[LeanViewSet], str, dict[str, Any]] | None:
        if path in self.plain:
            view, actions = self.plain[path]
            return (view, actions[method], {}) if method in actions else None
        for pattern, view, actions in self.patterns:
            if method in actions and (found := pattern.match(path[1:])) is not None:
                return view, actions[method], found[2]
        return None


_routes = _Routes()
for _route in get_resolver().url_patterns:
    if isinstance(_route, URLPattern):
        _routes.add(_route)


def _view(request: HttpRequest) -> HttpResponse:
    view, action, given = request.META[_ROUTE]
    response: HttpResponse = view.lean_answer(request, action, given)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Length"] = str(len(response.content))
    return response


def _traced(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """With `highlight_sql` these requests' statements are printed like all others."""
    if f"{SqlTraceMiddleware.__module__}.{SqlTraceMiddleware.__qualname__}" in settings.MIDDLEWARE:
        with contextlib.suppress(MiddlewareNotUsed):
            return SqlTraceMiddleware(view)
    return view


_answer = RequestContextMiddleware(_traced(_view))


def takes(environ: dict[str, Any]) -> bool:
    path = environ["PATH_INFO"]
    if "HTTP_AUTHORIZATION" not in environ or not path.isascii():
        return False
    environ[_ROUTE] = _routes.find(environ["REQUEST_METHOD"], path)
    return environ[_ROUTE] is not None


def respond(environ: dict[str, Any]) -> HttpResponse:
    return _answer(WSGIRequest(environ))

"""What every page of the console has in common: who may see it, the frame around it, its live part, its refusals.

Owns the way from a view function to an answer. A page that is open asks for itself again with the header `X-Live`: then
only its middle is rendered, and nothing at all (304) when it reads as before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from urllib.parse import quote

from django.contrib import admin
from django.db import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string

from accounts.authentication import of_user
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound, OmniError
from omni.rest import problem
from omni.rest.permissions import require

# What differs between two renderings of the same state.
_FLEETING = re.compile(rb'<time [^>]*>[^<]*</time>|name="csrfmiddlewaretoken" value="[^"]*"|data-fleeting>[^<]*<')


@dataclass(slots=True)
class Page:
    """What a view hands back: a template of `console/` and its values. `live`: the seconds between asking again."""

    template: str
    title: str
    values: dict[str, Any] = field(default_factory=dict)
    live: float | None = None
    above: tuple[tuple[str, str], ...] = ()  # the way here: (title, address)
    status: int = 200


View = Callable[..., "Page | HttpResponse"]


def page(scope: str) -> Callable[[View], Callable[..., HttpResponse]]:
    """A view `(request, actor, **path) -> Page`, for whoever has a session and `scope` (none: any session)."""

    def decorate(view: View) -> Callable[..., HttpResponse]:
        def answer(request: HttpRequest, **given: Any) -> HttpResponse:
            actor = of_user(request.user)  # type: ignore[arg-type]  # admin_view lets nobody else in
            try:
                if scope:
                    require(actor, scope)
                found = view(request, actor, **given)
            except (OmniError, Http404, DatabaseError) as error:
                found = refusal(problem.translate(error))
            return found if isinstance(found, HttpResponse) else rendered(request, actor, found)

        return wraps(view)(admin.site.admin_view(answer))

    return decorate


@page("")
def nowhere(request: HttpRequest, actor: Actor, rest: str) -> Page | HttpResponse:
    """What is no page: said like anything else that is not there. An address without its last slash gets it."""
    if not rest.endswith("/") and request.method == "GET":
        return HttpResponseRedirect(f"/admin/{quote(rest)}/")
    raise NotFound("There is no such page.")


def refusal(error: OmniError) -> Page:
    """A refused page says what is wrong and what to do next, like the API."""
    missing = isinstance(error, NotFound)
    title = "There is nothing here" if missing else error.title
    return Page("refused.html", title, {"error": error, "is_missing": missing}, status=error.status)


def rendered(request: HttpRequest, actor: Actor, found: Page) -> HttpResponse:
    live = request.headers.get("X-Live") == "1"
    context = {**found.values, "page": found, "title": found.title, "actor": actor, "path": request.path}
    if live:
        return _live(request, found, {**context, "frame": "console/live.html"})
    context["frame"] = "console/frame.html"
    body = render_to_string(f"console/{found.template}", context, request)
    return HttpResponse(body, status=found.status, headers={"Cache-Control": "no-store"})


def _live(request: HttpRequest, found: Page, context: dict[str, Any]) -> HttpResponse:
    body = render_to_string(f"console/{found.template}", context, request).encode()
    tag = f'"{hashlib.blake2b(_FLEETING.sub(b"", body), digest_size=9).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-store"}
    if request.headers.get("If-None-Match") == tag:
        return HttpResponse(status=304, headers=headers)
    return HttpResponse(body, status=found.status, headers=headers)


def whole_number(request: HttpRequest, name: str) -> int | None:
    """A whole number of the query, if that is what it is."""
    text = request.GET.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

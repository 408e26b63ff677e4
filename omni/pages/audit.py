"""`/admin/events/`: every change, found by what, who, where and when.

Owns the search: a bounded stretch of the record at a time, so that a question without an answer stays cheap.
"""

from __future__ import annotations

from typing import Any

import orjson
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from accounts import access
from apps.models import App
from omni.kernel.context import Actor
from omni.kernel.models import Event
from omni.pages import happened
from omni.pages.frame import Page, page, whole_number

_STRETCH, _ROWS = 20_000, 50
_FIELDS = ("kind", "actor", "app", "request", "q")


@page("events:read")
def view(request: HttpRequest, actor: Actor) -> Page:
    asked = {name: request.GET.get(name, "").strip()[:200] for name in _FIELDS}
    rows = Event.objects.all()
    if not actor.platform:
        rows = rows.filter(org_id__in=access.orgs(actor).values("id"))
    before = whole_number(request, "before")
    if before is not None:
        rows = rows.filter(key__lt=before)
    found, older, stopped = _found(rows, asked)
    values = {
        "events": [{**one, "change": orjson.dumps(one["event"].change).decode()} for one in happened.told(found)],
        "asked": asked, "older": older, "stopped": stopped, "stretch": _STRETCH, "first": before is None,
        "filtered": any(asked.values()),
    }  # fmt: skip
    return Page("events.html", "Events", values, live=3 if before is None else None)


def _found(rows: QuerySet[Event], asked: dict[str, str]) -> tuple[list[Event], int | None, bool]:
    """One page; where the next begins; whether it stopped at the end of a stretch rather than at a full page."""
    condition = _condition(asked)
    end: int | None = None
    if condition is not None:
        keys = list(rows.order_by("-key").values_list("key", flat=True)[_STRETCH : _STRETCH + 1])
        end = keys[0] if keys else None
        rows = rows.filter(condition)
        if end is not None:
            rows = rows.filter(key__gt=end)
    found = list(rows.order_by("-key")[: _ROWS + 1])
    if len(found) > _ROWS:
        return found[:_ROWS], found[_ROWS - 1].key, False
    return found, end + 1 if end is not None else None, end is not None


def _condition(asked: dict[str, str]) -> Q | None:
    parts: list[Q] = []
    if asked["kind"]:
        parts.append(Q(kind__startswith=asked["kind"]))
    if asked["actor"]:
        parts.append(Q(actor__icontains=asked["actor"]))
    if asked["request"]:
        parts.append(Q(request_id=asked["request"]))
    if asked["app"]:
        parts.append(Q(app_id__in=_apps(asked["app"])))
    if asked["q"]:
        parts.append(Q(cause__icontains=asked["q"]) | Q(kind__icontains=asked["q"]) | Q(member__icontains=asked["q"]))
    found: Any = None
    for part in parts:
        found = part if found is None else found & part
    return found  # type: ignore[no-any-return]


def _apps(ref: str) -> list[int]:
    """By id, or by name in whatever org."""
    number = int(ref) if ref.isascii() and ref.isdigit() and len(ref) < 19 else 0
    return list(App.objects.filter(Q(name=ref) | Q(pk=number)).values_list("pk", flat=True)[:100])

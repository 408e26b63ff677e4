"""`/admin/events/`: every change, found by what, who, where and when.

Owns the search: a bounded stretch of the record at a time, so that a question without an answer stays cheap. Times
are found by halving, for events are numbered in the order in which they happened; there is no index over times.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from typing import Any

import orjson
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from accounts import access
from apps.models import App
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.kernel.models import ORDINALS, Event
from omni.pages import happened
from omni.pages.frame import Page, page, whole_number

_STRETCH, _ROWS = 20_000, 50
_FIELDS = ("kind", "actor", "app", "request", "q", "from", "until")
_STEPS = 4096  # the record is halved down to so many parts: twelve looks
_CLOCKS = dt.timedelta(minutes=1)  # leaders' clocks may differ by so much and nothing is missed


@page("events:read")
def view(request: HttpRequest, actor: Actor) -> Page:
    asked = {name: request.GET.get(name, "").strip()[:200] for name in _FIELDS}
    rows = Event.objects.all()
    if not actor.platform:
        rows = rows.filter(org_id__in=access.orgs(actor).values("id"))
    since, until = moment(asked["from"]), moment(asked["until"])
    if until is not None:
        rows = _not_after(rows, until)
    before = whole_number(request, "before")
    if before is not None:
        rows = rows.filter(key__lt=before)
    found, older, stopped = _found(rows, asked, since)
    values = {
        "events": [{**one, "change": orjson.dumps(one["event"].change).decode()} for one in happened.told(found)],
        "asked": asked, "older": older, "stopped": stopped, "stretch": _STRETCH, "first": before is None,
        "filtered": any(asked.values()), "since": _shown(since), "until": _shown(until),
        "no_time": [asked[name] for name, found in (("from", since), ("until", until)) if asked[name] and not found],
    }  # fmt: skip
    return Page("events.html", "Events", values, live=3 if before is None and until is None else None)


def moment(text: str) -> dt.datetime | None:
    """A time as browsers and our own API write it, in UTC when it says nothing else; None for what is none. Pure."""
    try:
        found = dt.datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def _shown(moment: dt.datetime | None) -> str:
    """As the field of a browser takes it."""
    return moment.strftime("%Y-%m-%dT%H:%M" if not moment.second else "%Y-%m-%dT%H:%M:%S") if moment else ""


def _not_after(rows: QuerySet[Event], until: dt.datetime) -> QuerySet[Event]:
    """Those up to `until`, the minute that it names included when it names no second."""
    if until.second == until.microsecond == 0:
        until += dt.timedelta(seconds=59, microseconds=999_999)
    every = Event.objects.order_by("key").values_list("key", flat=True)
    oldest, newest = every.first(), every.last()
    if oldest is None or newest is None:
        return rows
    first, last = oldest // ORDINALS, newest // ORDINALS
    steps = range(first, last + 1, max(1, (last - first) // _STEPS))
    at = bisect_right(steps, until + _CLOCKS, key=_time_of)
    return rows.filter(at__lte=until, **({"key__lt": steps[at] * ORDINALS} if at < len(steps) else {}))


def _time_of(write_index: int) -> dt.datetime:
    """When the first event of that write, or the next there is, happened."""
    later = Event.objects.filter(key__gte=write_index * ORDINALS).order_by("key")
    return later.values_list("at", flat=True).first() or clock.now()


def _found(
    rows: QuerySet[Event], asked: dict[str, str], since: dt.datetime | None
) -> tuple[list[Event], int | None, bool]:
    """One page; where the next begins; whether it stopped at the end of a stretch rather than at a full page."""
    condition = _condition(asked, since)
    end: int | None = None
    if condition is not None:
        ends = list(rows.order_by("-key").values_list("key", "at")[_STRETCH : _STRETCH + 1])
        if ends and (since is None or ends[0][1] > since - _CLOCKS):
            end = ends[0][0]
        elif ends:  # all that is older is older than what is asked for
            rows = rows.filter(key__gt=ends[0][0])
        rows = rows.filter(condition)
        if end is not None:
            rows = rows.filter(key__gt=end)
    found = list(rows.order_by("-key")[: _ROWS + 1])
    if len(found) > _ROWS:
        return found[:_ROWS], found[_ROWS - 1].key, False
    return found, end + 1 if end is not None else None, end is not None


def _condition(asked: dict[str, str], since: dt.datetime | None) -> Q | None:
    parts: list[Q] = [] if since is None else [Q(at__gte=since)]
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

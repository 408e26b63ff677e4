"""`/admin/app/`: every app in a row, found by name, state or org; and the form for a new one."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.http import HttpRequest

from accounts import access as accounts_access
from apps.access import apps as visible_apps
from apps.models import App
from instances.models import Instance, LatestSample
from instances.telemetry.figures import FRESH_US
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.pages.frame import Page, page, whole_number
from omni.pages.health import wanted as wanted_of
from omni.pages.sentence import in_a_row
from releases.models import Release

ROWS = 50
_STATES = ("running", "deploying", "degraded", "crashed", "stopped", "created", "deleting")


@page("apps:read")
def view(request: HttpRequest, actor: Actor) -> Page:
    every = visible_apps(actor)
    text, state, org = (request.GET.get(name, "").strip() for name in ("q", "state", "org"))
    counted = every.order_by().values_list("status").annotate(count=Count("id"))
    counts = {str(status): int(count) for status, count in counted}
    found = _filtered(every, text, state, org)
    before, after = whole_number(request, "before"), whole_number(request, "after")
    rows, older, newer = _portion(found.select_related("org"), before, after)
    values = {
        "rows": _rows(rows),
        "q": text, "state": state, "org": org,
        "states": [(name, counts[name]) for name in _STATES if counts.get(name)],
        "total": sum(counts.values()),
        "older": rows[-1].pk if older and rows else None,
        "newer": rows[0].pk if newer and rows else None,
        "orgs": list(accounts_access.orgs(actor).order_by("name").values_list("name", flat=True)[:200]),
        "may_create": "apps:write" in actor.scopes,
    }  # fmt: skip
    return Page("apps.html", "Apps", values, live=4)


def _filtered(rows: QuerySet[App], text: str, state: str, org: str) -> QuerySet[App]:
    if text:
        rows = rows.filter(Q(name__icontains=text) | Q(description__icontains=text) | Q(hostname__icontains=text))
    if state in _STATES:
        rows = rows.filter(status=state)
    return rows.filter(org__name=org) if org else rows


def _portion(rows: QuerySet[App], before: int | None, after: int | None) -> tuple[list[App], bool, bool]:
    """Newest first by id, so that page 200 costs what page 1 costs; whether older and newer ones follow."""
    if after is not None:
        found = list(rows.filter(pk__gt=after).order_by("pk")[: ROWS + 1])
        return found[:ROWS][::-1], True, len(found) > ROWS
    if before is not None:
        rows = rows.filter(pk__lt=before)
    found = list(rows.order_by("-pk")[: ROWS + 1])
    return found[:ROWS], len(found) > ROWS, before is not None


def _rows(apps: list[App]) -> list[dict[str, Any]]:
    ids = [app.pk for app in apps]
    counted = (
        Instance.objects.filter(app_id__in=ids, desired="run", status="running", health="healthy")
        .order_by().values_list("app_id").annotate(count=Count("id"))
    )  # fmt: skip
    healthy = {int(app): int(count) for app, count in counted}
    fresh = clock.to_us(clock.now()) - FRESH_US
    used = {
        int(row["app_id"]): row
        for row in LatestSample.objects.filter(app_id__in=ids, at_us__gt=fresh).order_by().values("app_id")
        .annotate(cpu=Sum("cpu_percent"), memory=Sum("memory_bytes"))
    }  # fmt: skip
    wanted = Q(pk__in=[])
    for app in apps:
        if app.desired_release is not None:
            wanted |= Q(app_id=app.pk, number=app.desired_release)
    versions = dict(Release.objects.filter(wanted).values_list("app_id", "version"))
    return [
        {
            "app": app,
            "told": in_a_row(app.status, app.desired_state, healthy.get(app.pk, 0), wanted_of(app)),
            "version": versions.get(app.pk),
            "cpu": used[app.pk]["cpu"] if app.pk in used else None,
            "memory": used[app.pk]["memory"] if app.pk in used else None,
        }
        for app in apps
    ]

"""`/admin/app/<app>/releases/` and `…/builds/`: what was built, what can be gone back to, and what differs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from apps import access
from apps.configuration import CONFIG_FIELDS, open_env
from instances import queries
from omni.kernel.context import Actor
from omni.pages.app import above, head, portion
from omni.pages.differences import Side, differences
from omni.pages.frame import Page, page, whole_number
from omni.pages.words import moment
from releases import access as release_access
from releases.models import Build, Release


@page("builds:read")
def releases(request: HttpRequest, actor: Actor, app: str) -> Page:
    found = access.app(actor, app)
    every = Release.objects.filter(app=found).select_related("config", "package", "build")
    rows, older = portion(every, request)
    runs = queries.version(found.pk)
    values = {
        **head(actor, found, "releases"),
        "releases": rows,
        "older": older,
        "running": runs["release"],
        "compared": _compared(request, found.pk, found.desired_release),
    }
    return Page("releases.html", f"Releases of {found.name}", values, live=4, above=above(found))


def _compared(request: HttpRequest, app_id: int, desired: int | None) -> dict[str, Any] | None:
    """`?from=&to=`, release numbers; `to` is what is deployed unless it is said."""
    first, second = whole_number(request, "from"), whole_number(request, "to") or desired
    if first is None or second is None:
        return None
    rows = {
        row.number: row
        for row in Release.objects.filter(app_id=app_id, number__in=(first, second)).select_related("config")
    }
    if first not in rows or second not in rows:
        return None
    before, after = rows[first], rows[second]
    return {"before": before, "after": after, "found": differences(_side(before), _side(after))}


def _side(release: Release) -> Side:
    config = release.config
    fields = {name: getattr(config, name) for name in CONFIG_FIELDS}
    return Side(release.package_id, release.process_types, fields, open_env(config), frozenset(config.secret_keys))


@page("builds:read")
def builds(request: HttpRequest, actor: Actor, app: str) -> Page:
    found = access.app(actor, app)
    rows, older = portion(Build.objects.filter(app=found).select_related("artifact"), request)
    values = {**head(actor, found, "builds"), "builds": rows, "older": older}
    return Page("builds.html", f"Builds of {found.name}", values, live=3, above=above(found))


@page("builds:read")
def build(request: HttpRequest, actor: Actor, app: str, build: int) -> Page:
    row = release_access.build(actor, app, build)
    found = access.app(actor, app)
    values = {
        **head(actor, found, "builds"),
        "build": row,
        "steps": [_step(step) for step in row.steps],
        "ended": row.finished_at is not None,
        "took": (row.finished_at - row.started_at).total_seconds() if row.finished_at and row.started_at else None,
        "may_cancel": "builds:write" in actor.scopes and row.finished_at is None and not row.cancel_requested,
    }
    live = None if row.finished_at is not None else 1.5
    return Page("build.html", f"Build {row.pk}", values, live=live or 10,
                above=above(found, ("Builds", f"/admin/app/{found.pk}/builds/")))  # fmt: skip


def _step(step: dict[str, Any]) -> dict[str, Any]:
    begun, ended = moment(step.get("started_at")), moment(step.get("finished_at"))
    took = (ended - begun).total_seconds() if begun and ended else None
    return {"name": step.get("name"), "status": step.get("status"), "took": took, "begun": begun}

"""`/admin/app/<app>/`: one app: how it is, what runs, what it wrote, what was deployed, how it is configured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from apps import access, domains, processes
from apps.configuration import current_env
from apps.models import App
from apps.representation import app as show
from instances import queries
from instances.api import latest_figures
from instances.models import Deployment, Instance
from instances.telemetry.figures import app_metrics
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.kernel.models import Event
from omni.pages import happened, health, spark
from omni.pages.frame import Page, page, whole_number
from omni.pages.sentence import ended, restarts_lately, sentence
from omni.pages.stages import stages
from releases.models import Build
from releases.states import BuildStatus

ROWS = 100
_EVENTS, _PAGE = 8, 50
TABS = (
    ("", "Overview", "apps:read"),
    ("logs", "Log", "logs:read"),
    ("releases", "Releases", "builds:read"),
    ("builds", "Builds", "builds:read"),
    ("deployments", "Deployments", "apps:read"),
    ("config", "Configuration", "apps:read"),
    ("events", "Events", "events:read"),
)


def head(actor: Actor, app: App, tab: str) -> dict[str, Any]:
    """What stands above every page of an app: its name, its state in a sentence, its tabs and its buttons."""
    rows = wanted_instances(app)
    last = newest_deployment(app)
    building = (
        Build.objects.filter(app=app, status__in=(BuildStatus.QUEUED, BuildStatus.BUILDING)).order_by("-id").first()
    )
    told = sentence(health.facts(app, rows, last, building.version if building else "", clock.now()))
    base = f"/admin/app/{app.pk}/"
    return {
        "app": app,
        "told": told,
        "rows": rows,
        "last": last,
        "building": building,
        "tabs": [(f"{base}{name}/" if name else base, title, name == tab) for name, title, scope in TABS
                 if scope in actor.scopes],
        "may": "apps:write" in actor.scopes and app.desired_state != "deleted",
        "may_instances": "instances:write" in actor.scopes and app.desired_state != "deleted",
    }  # fmt: skip


def above(app: App, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("Apps", "/admin/app/"), (app.name, f"/admin/app/{app.pk}/"), *more)


def wanted_instances(app: App) -> list[Instance]:
    """What runs or is to run, and what ended and waits for its successor; by slot, the newest first."""
    found = Instance.objects.filter(app=app, desired__in=("run", "stop")).select_related("node", "release")
    return list(found.defer("placement", "handle", "drained_by").order_by("process_type", "slot", "-id")[: ROWS + 1])


def newest_deployment(app: App) -> Deployment | None:
    return Deployment.objects.filter(app=app).select_related("release", "previous_release").order_by("-id").first()


@page("apps:read")
def view(request: HttpRequest, actor: Actor, app: str) -> Page:
    found = access.app(actor, app)
    top = head(actor, found, "")
    last: Deployment | None = top["last"]
    deployment = queries.show_deployment(last) if last is not None else None
    metrics = app_metrics(found.pk)
    values = {
        **top,
        "types": processes.shown(found, dict),
        "shown": show(found, current_env(found)),
        "custom_domains": domains.details(found),
        "metrics": metrics,
        "error_percent": None if metrics.get("error_rate") is None else metrics["error_rate"] * 100,
        "version": queries.version(found.pk),
        "instances": instance_rows(top["rows"][:ROWS]),
        "more_instances": len(top["rows"]) > ROWS,
        "deployment": deployment,
        "stages": stages(deployment) if deployment else [],
        "progress": _progress(deployment, top["rows"]),
        "events": happened.told(happened.telling(Event.objects.filter(app_id=found.pk), _EVENTS)),
    }
    under_way = deployment is not None and deployment["phase"] is not None
    return Page("app.html", found.name, values, live=1.5 if under_way else 3, above=above(found)[:1])


def _progress(deployment: dict[str, Any] | None, rows: Sequence[Instance]) -> dict[str, int] | None:
    """How many of the wanted instances are the deployment's and healthy."""
    if deployment is None or deployment["phase"] is None or not deployment["instances"]:
        return None
    done = sum(
        row.release.number == deployment["release"] and row.desired == "run" and row.health == "healthy" for row in rows
    )
    return {"done": min(done, deployment["instances"]), "of": deployment["instances"]}


def instance_rows(rows: Sequence[Instance]) -> list[dict[str, Any]]:
    """With what was measured last and the course of the last quarter of an hour. Two queries, however many."""
    now = clock.now()
    ids = [row.pk for row in rows]
    measured = latest_figures(ids)
    courses = spark.courses(ids, now)
    return [
        {
            "row": row,
            "slot_text": str(row.slot),
            "cpu": measured.get(row.pk, {}).get("cpu_percent"),
            "memory": measured.get(row.pk, {}).get("memory_bytes"),
            "limit": row.memory_mb << 20,
            "course": courses.get(row.pk),
            "lately": restarts_lately(row.history, row.restarts, now),
            "ended": ended(row.last_exit),
            "leaves": row.desired != "run",
            "can_act": row.desired == "run" and row.status in ("placed", "starting", "running", "crashed"),
        }
        for row in rows
    ]


@page("events:read")
def events(request: HttpRequest, actor: Actor, app: str) -> Page:
    found = access.app(actor, app)
    every, whole = Event.objects.filter(app_id=found.pk), request.GET.get("all") == "1"
    rows, older = portion(every if whole else every.exclude(kind__in=happened.QUIET), request, "key")
    values = {**head(actor, found, "events"), "events": happened.told(rows), "older": older, "whole": whole}
    return Page("app_events.html", f"Events of {found.name}", values, live=4, above=above(found))


@page("logs:read")
def logs(request: HttpRequest, actor: Actor, app: str) -> Page:
    found = access.app(actor, app)
    chosen = whole_number(request, "instance")
    return Page("app_logs.html", f"Log of {found.name}", {**head(actor, found, "logs"), "chosen": chosen}, live=5,
                above=above(found))  # fmt: skip


def portion(rows: QuerySet[Any], request: HttpRequest, key: str = "id") -> tuple[list[Any], int | None]:
    """One page, newest first, and where the next one begins."""
    before = whole_number(request, "before")
    if before is not None:
        rows = rows.filter(**{f"{key}__lt": before})
    found = list(rows.order_by(f"-{key}")[: _PAGE + 1])
    more = len(found) > _PAGE
    return found[:_PAGE], getattr(found[_PAGE - 1], key) if more else None

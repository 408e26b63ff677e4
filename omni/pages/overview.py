"""`/admin/`: what is healthy, what is not, since when, and what changed just before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db.models import Count
from django.http import HttpRequest

from accounts import access as accounts_access
from apps.access import apps as visible_apps
from instances.api_nodes import shown as shown_nodes
from instances.deployment_rows import PHASES, phase_of
from instances.models import Deployment, Instance, Node
from instances.states import LIVE
from omni.api import parts
from omni.api.cluster import standing
from omni.kernel.context import Actor
from omni.kernel.models import Event
from omni.kernel.probes import ask_all
from omni.pages import happened, health, services, topology
from omni.pages.frame import Page, page
from releases.models import Build
from releases.states import BuildStatus
from services.models import Alert

_SICK = ("crashed", "degraded")
_MOST_SICK, _MOST_NODES, _EVENTS, _UNDER_WAY = 8, 400, 10, 8
_NODE_FIELDS = ("id", "name", "address", "status", "status_since", "draining", "ingress", "labels", "cpu_count",
                "memory_mb", "facts", "created_at", "revision")  # fmt: skip


@page("apps:read")
def view(request: HttpRequest, actor: Actor) -> Page:
    values: dict[str, Any] = {
        "apps": _apps(actor),
        "sick": _sick(actor),
        "builds": _builds(actor),
        "deployments": _deployments(actor),
        "events": _events(actor),
    }
    if actor.platform:
        values |= {"cluster": cluster(), "nodes": _nodes(), "instances": _instances(), "alerts": _alerts(),
                   "services": services.sick()}  # fmt: skip
    return Page("overview.html", "Overview", values, live=3)


def cluster() -> dict[str, Any]:
    """The cluster with its members' places on the map, and the health of the platform's own parts."""
    seen = ask_all({"database": parts.database, "raft": parts.raft, "broker": parts.broker, "ingress": parts.ingress})
    found = standing(settings.CONFIG, seen["database"], seen["raft"])
    found["map"] = topology.places(found["members"], found["node"])
    found["height"] = topology.height(len(found["members"]))
    found["parts"] = [
        (name.capitalize(), str(part.get("status", "unknown")), _detail(part))
        for name, part in (("database", found["database"]), ("broker", seen["broker"]), ("ingress", seen["ingress"]))
    ]
    return found


def _detail(part: Mapping[str, Any]) -> str:
    if part.get("detail"):
        return str(part["detail"])
    return f"{part['latency_ms']} ms" if part.get("latency_ms") is not None else ""


def _apps(actor: Actor) -> dict[str, Any]:
    rows = visible_apps(actor).order_by().values_list("status").annotate(count=Count("id"))
    counts = {str(status): int(count) for status, count in rows}
    order = ("crashed", "degraded", "deploying", "running", "stopped", "created", "deleting")
    return {"total": sum(counts.values()), "by_status": [(name, counts[name]) for name in order if counts.get(name)]}


def _sick(actor: Actor) -> dict[str, Any]:
    rows = list(visible_apps(actor).filter(status__in=_SICK).select_related("org").order_by("status", "-updated_at")[
        : _MOST_SICK + 1])  # fmt: skip
    told = health.sentences(rows[:_MOST_SICK])
    return {"rows": [(app, told[app.pk]) for app in rows[:_MOST_SICK]], "more": len(rows) > _MOST_SICK}


def _builds(actor: Actor) -> list[Build]:
    rows = Build.objects.filter(status__in=(BuildStatus.QUEUED, BuildStatus.BUILDING, BuildStatus.LOST))
    return list(accounts_access.visible(actor, rows, "app__org").select_related("app").order_by("-id")[:_UNDER_WAY])


def _deployments(actor: Actor) -> list[dict[str, Any]]:
    rows = Deployment.objects.filter(active_key__isnull=False)
    found = accounts_access.visible(actor, rows, "app__org").select_related("app", "release").order_by("-id")
    return [
        {"row": row, "phase": phase_of(row.status, row.strategy, {name: getattr(row, name) for name in PHASES})}
        for row in found[:_UNDER_WAY]
    ]


def _alerts() -> list[Alert]:
    """Those that are open; what speaks through another one is not told twice."""
    rows = Alert.objects.filter(active_key__isnull=False, grouped_under=None).order_by("-id")
    return list(rows[:_MOST_SICK])


def _events(actor: Actor) -> list[dict[str, Any]]:
    rows = Event.objects.all()
    if not actor.platform:
        rows = rows.filter(org_id__in=accounts_access.orgs(actor).values("id"))
    return happened.told(happened.telling(rows, _EVENTS))


def _nodes() -> dict[str, Any]:
    rows = shown_nodes(list(Node.objects.order_by("name").values(*_NODE_FIELDS)[: _MOST_NODES + 1]))
    for row in rows:
        capacity = row["capacity"]["memory_mb"]
        row["memory_share"] = round(100 * row["allocated"]["memory_mb"] / capacity) if capacity else 0
        row["fill"] = min(4, row["memory_share"] // 20)
    return {
        "rows": rows[:_MOST_NODES],
        "more": len(rows) > _MOST_NODES,
        "ready": sum(row["status"] == "ready" for row in rows),
    }


def _instances() -> dict[str, int]:
    rows = Instance.objects.filter(status__in=LIVE).order_by().values_list("status").annotate(count=Count("id"))
    counts = {str(status): int(count) for status, count in rows}
    return {"running": counts.get("running", 0), "other": sum(counts.values()) - counts.get("running", 0)}

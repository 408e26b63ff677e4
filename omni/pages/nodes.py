"""`/admin/nodes/`: where instances run, how full each place is, and taking one out of use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest

from instances import access
from instances.api_nodes import shown
from instances.models import Instance, Node
from instances.states import ON_NODE
from omni.kernel.context import Actor
from omni.kernel.models import Event
from omni.pages import happened
from omni.pages.frame import Page, page, whole_number

_FIELDS = ("id", "name", "address", "status", "status_since", "draining", "ingress", "labels", "cpu_count",
           "memory_mb", "facts", "created_at", "revision")  # fmt: skip
_ROWS, _INSTANCES, _WAITING, _EVENTS, _LOOKED_AT = 100, 200, 20, 8, 2_000


@page("platform:read")
def listing(request: HttpRequest, actor: Actor) -> Page:
    rows = Node.objects.order_by("name", "id")
    text, after = request.GET.get("q", "").strip(), request.GET.get("after", "")
    if text:
        rows = rows.filter(name__icontains=text)
    if after:
        rows = rows.filter(name__gt=after)
    found = shown(list(rows.values(*_FIELDS)[: _ROWS + 1]))
    values = {"rows": [_filled(row) for row in found[:_ROWS]], "q": text,
              "further": found[_ROWS - 1]["name"] if len(found) > _ROWS else ""}  # fmt: skip
    return Page("nodes.html", "Nodes", values, live=4)


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "overcommitted": row["allocated"]["cpu"] > row["capacity"]["cpu_count"]}


@page("platform:read")
def one(request: HttpRequest, actor: Actor, node: str) -> Page:
    found = access.node(node)
    row = shown([Node.objects.values(*_FIELDS).get(pk=found.pk)])[0]
    rows = Instance.objects.filter(node=found, status__in=ON_NODE).select_related("app", "release").order_by("id")
    after = whole_number(request, "after")
    if after is not None:
        rows = rows.filter(pk__gt=after)
    running = list(rows.defer("history", "handle", "drained_by")[: _INSTANCES + 1])
    values = {
        "node": found,
        "row": _filled(row),
        "running": [(one, str((one.placement or {}).get("reason", ""))) for one in running[:_INSTANCES]],
        "further": running[_INSTANCES - 1].pk if len(running) > _INSTANCES else None,
        "waiting": _waiting(found.name),
        "events": happened.told(_events(found.pk)),
        "may": "platform:write" in actor.scopes,
    }
    return Page("node.html", found.name, values, live=4, above=(("Nodes", "/admin/nodes/"),))


def _waiting(node: str) -> list[tuple[Instance, str]]:
    """Instances that no node takes, with what was said of this one."""
    rows = Instance.objects.filter(status="pending", desired="run").select_related("app").order_by("id")
    found = []
    for one in rows.defer("history", "handle", "drained_by")[:_WAITING]:
        verdicts = (one.placement or {}).get("verdicts") or ()
        said = next((str(verdict["reason"]) for verdict in verdicts if verdict.get("node") == node), "")
        found.append((one, said or one.reason or "not looked at yet"))
    return found


def _events(node_id: int) -> list[Event]:
    """Those of the node among the newest of all: events have no index by object."""
    recent = Event.objects.order_by("-key").values_list("key", "object_type", "object_id", "kind")[:_LOOKED_AT]
    keys = [key for key, kind, id_, what in recent if (kind, id_) == ("node", node_id) and what not in happened.QUIET]
    return list(Event.objects.filter(key__in=keys[:_EVENTS]).order_by("-key"))

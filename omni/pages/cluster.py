"""`/admin/cluster/`: the members, who led when, and handing the leadership over."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from omni.kernel.context import Actor
from omni.kernel.models import Event
from omni.pages import overview
from omni.pages.frame import Page, page

_LOOKED_AT, _SHOWN = 3_000, 20


@page("platform:read")
def view(request: HttpRequest, actor: Actor) -> Page:
    values = {
        "cluster": overview.cluster(),
        "history": history(),
        "looked_at": _LOOKED_AT,
        "may": "platform:write" in actor.scopes,
    }
    return Page("cluster.html", "Cluster", values, live=2)


def history() -> list[dict[str, Any]]:
    """Who wrote under which epoch, the present one first, among the newest events: epochs grow with their keys."""
    rows = Event.objects.order_by("-key").values_list("epoch", "member", "at")[:_LOOKED_AT]
    found: list[dict[str, Any]] = []
    for epoch, member, at in rows:
        if not found or found[-1]["epoch"] != epoch:
            found.append({"epoch": epoch, "member": member, "last": at, "first": at, "writes": 0})
        found[-1]["first"] = at
        found[-1]["writes"] += 1
    return found[:_SHOWN]

"""`/admin/app/<app>/instances/<id>/`: one instance, running or long gone, with why it is where it is."""

from __future__ import annotations

from django.http import HttpRequest

from apps import access
from instances import access as instance_access
from instances import representation
from omni.kernel.context import Actor
from omni.pages.app import above, head, instance_rows
from omni.pages.frame import Page, page
from omni.pages.sentence import ended


@page("instances:read")
def view(request: HttpRequest, actor: Actor, app: str, instance: int) -> Page:
    row = instance_access.instance(actor, app, instance)
    found = access.app(actor, app)
    values = {
        **head(actor, found, ""),
        "details": representation.details(row),
        "one": instance_rows([row])[0],
        "ended": ended(row.last_exit),
        "history": list(reversed(row.history)),
    }
    return Page("instance.html", f"Slot {row.slot} ({row.pk})", values, live=3, above=above(found))

"""`/admin/app/<app>/deployments/`: each rollout, step by step, with its evidence when it failed."""

from __future__ import annotations

from django.http import HttpRequest

from apps import access
from instances import access as instance_access
from instances import queries
from instances.models import Deployment
from omni.kernel.context import Actor
from omni.pages.app import above, head, portion
from omni.pages.frame import Page, page
from omni.pages.sentence import ended
from omni.pages.stages import stages


@page("apps:read")
def listing(request: HttpRequest, actor: Actor, app: str) -> Page:
    found = access.app(actor, app)
    every = Deployment.objects.filter(app=found).select_related("release", "previous_release")
    rows, older = portion(every.defer("steps", "evidence"), request)
    values = {**head(actor, found, "deployments"), "deployments": rows, "older": older}
    return Page("deployments.html", f"Deployments of {found.name}", values, live=3, above=above(found))


@page("apps:read")
def one(request: HttpRequest, actor: Actor, app: str, deployment: int) -> Page:
    found, row = instance_access.deployment(actor, app, deployment)
    shown = queries.show_deployment(row, counts=True)
    top = head(actor, found, "deployments")
    done = sum(
        one.release_id == row.release_id and one.desired == "run" and one.health == "healthy" for one in top["rows"]
    )
    under_way = shown["phase"] is not None
    values = {
        **top,
        "deployment": shown,
        "stages": stages(shown),
        "progress": {"done": min(done, row.desired_instances), "of": row.desired_instances}
        if under_way and row.desired_instances
        else None,
        "steps": list(reversed(row.steps)),
        "evidence": row.evidence,
        "ended": ended(row.evidence.get("last_exit")) if row.evidence else "",
        "is_newest": top["last"] is not None and top["last"].pk == row.pk,
    }
    return Page("deployment.html", f"Deployment {row.pk}", values, live=1.5 if under_way else 8,
                above=above(found, ("Deployments", f"/admin/app/{found.pk}/deployments/")))  # fmt: skip

"""The one way to get at deployments and instances: through their app, only where the actor may see it."""

from __future__ import annotations

from apps.access import app as find_app
from apps.models import App
from instances.models import Deployment, Instance, Node
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound


def instance(actor: Actor, app_ref: str, instance_id: int) -> Instance:
    """An instance of that very app, gone or not. Raises NotFound."""
    app = find_app(actor, app_ref)
    rows = Instance.objects.select_related("node", "release", "release__config", "deployment")
    found = rows.filter(pk=instance_id, app=app).first()
    if found is None:
        raise NotFound("There is no such instance.", next=f"GET /app/{app.pk}/instances")
    found.app = app
    return found


def deployment(actor: Actor, app_ref: str, deployment_id: int) -> tuple[App, Deployment]:
    """Raises NotFound."""
    app = find_app(actor, app_ref)
    rows = Deployment.objects.select_related("release", "previous_release")
    found = rows.filter(pk=deployment_id, app=app).first()
    if found is None:
        raise NotFound("There is no such deployment.", next=f"GET /app/{app.pk}/deployments")
    return app, found


def node(ref: str) -> Node:
    """A node by id or name; the platform's own, so scopes decide. Raises NotFound."""
    rows = Node.objects.all()
    found = rows.filter(pk=int(ref)).first() if ref.isascii() and ref.isdigit() and len(ref) < 19 else None
    found = found or rows.filter(name=ref).first()
    if found is None:
        raise NotFound("There is no such node.", next="GET /nodes")
    return found

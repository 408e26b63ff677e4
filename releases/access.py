"""The one way to get at builds and releases: through their app, which the actor must see.

Owns the rule that a nested id belongs to its parent: another app's build under this app's path is a 404.
"""

from __future__ import annotations

from django.db.models import QuerySet

from apps import access as app_access
from apps.models import App
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound
from releases import services
from releases.models import Build, Release


def app(actor: Actor, ref: str) -> App:
    """The app in the path. Raises NotFound."""
    return app_access.app(actor, ref)


def builds(actor: Actor, app_ref: str) -> tuple[App, QuerySet[Build]]:
    """The app and its builds."""
    found = app_access.app(actor, app_ref)
    return found, Build.objects.filter(app=found)


def build(actor: Actor, app_ref: str, build_id: int) -> Build:
    """One build of the app. Raises NotFound."""
    owner, visible = builds(actor, app_ref)
    row = visible.select_related("app", "artifact").filter(pk=build_id).first()
    if row is None:
        raise NotFound("The app has no such build.", next=f"GET /app/{owner.pk}/builds")
    return row


def releases(actor: Actor, app_ref: str) -> tuple[App, QuerySet[Release]]:
    """The app and its releases."""
    found = app_access.app(actor, app_ref)
    return found, Release.objects.filter(app=found)


def release(actor: Actor, app_ref: str, version: str) -> tuple[App, Release]:
    """The newest release of a version. Raises NotFound."""
    found = app_access.app(actor, app_ref)
    return found, services.release_for(found, version=version)

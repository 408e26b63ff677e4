"""The one way to get at an app: by id or name, only where the actor may see it.

Owns the meaning of `<app>` in a path. Another org's app is a 404.
"""

from __future__ import annotations

import re

from django.db import connection
from django.db.models import QuerySet

from accounts import access
from apps.models import App
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"[0-9]{1,18}")


def apps(actor: Actor) -> QuerySet[App]:
    """The apps that the actor may see."""
    return access.visible(actor, App.objects.all())


def app(actor: Actor, ref: str | int, *, lock: bool = False) -> App:
    """An app by id, or by name in the actor's org. `lock` holds its row until the end. Raises NotFound."""
    text = str(ref)
    found = None
    visible = apps(actor).select_related("org")
    if _ID.fullmatch(text):
        found = visible.filter(id=int(text)).first()
    elif NAME.fullmatch(text) and actor.org_id is not None:
        found = visible.filter(org_id=actor.org_id, name=text).first()
    if found is None:
        raise NotFound("There is no such app.", next="GET /app")
    if lock:  # by key and alone: a lock over joins would hold the org's row too
        org = found.org
        found = App.objects.select_for_update().filter(pk=found.pk).first()
        if found is None:
            raise NotFound("There is no such app.", next="GET /app")
        found.org = org
    return found


def app_id(actor: Actor, ref: str | int) -> int:
    """The id alone, for the reads that are asked for most: one look-up by key, under the same rule as `app`."""
    text = str(ref)
    if actor.kind != "token" and not actor.platform:
        return app(actor, ref).pk
    by_id = _ID.fullmatch(text) is not None
    if not by_id and (not NAME.fullmatch(text) or actor.org_id is None):
        raise NotFound("There is no such app.", next="GET /app")
    with connection.cursor() as cursor:
        if by_id:
            cursor.execute("SELECT id, org_id FROM apps_app WHERE id = %s", [int(text)])
        else:
            cursor.execute("SELECT id, org_id FROM apps_app WHERE org_id = %s AND name = %s", [actor.org_id, text])
        row = cursor.fetchone()
    if row is None or (not actor.platform and row[1] != actor.org_id):
        raise NotFound("There is no such app.", next="GET /app")
    return int(row[0])

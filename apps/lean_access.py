"""`apps.access.app` for the reads that are asked for most: the same rule, without composing SQL.

Owns the one statement that finds an app with its org. Tokens and operators only; a console user's memberships go the
long way. Org names never change, so that the join is all there is to read.
"""

from __future__ import annotations

from accounts.access import may_see
from accounts.models import Org
from apps import access
from apps.models import App
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound

_SELECT = "SELECT a.*, o.name AS org_name FROM apps_app a JOIN accounts_org o ON o.id = a.org_id WHERE "


def app(actor: Actor, ref: str) -> App:
    """An app by id, or by name in the actor's org. Raises NotFound."""
    if ref.isascii() and ref.isdigit() and len(ref) < 19:
        rows = App.objects.raw(_SELECT + "a.id = %s", [int(ref)])
    elif actor.org_id is not None and access.NAME.fullmatch(ref):
        rows = App.objects.raw(_SELECT + "a.org_id = %s AND a.name = %s", [actor.org_id, ref])
    else:
        return access.app(actor, ref)
    found = next(iter(rows), None)
    if found is None or not may_see(actor, found.org_id):
        raise NotFound("There is no such app.", next="GET /app")
    found.org = Org(id=found.org_id, name=found.org_name)  # type: ignore[attr-defined]
    return found

"""`apps.access.app` for the reads that are asked for most: the same rule, without reading a row that has not changed.

Owns a copy of each app in this process, valid for as long as the row's revision is the same (every change of an app
moves it). Whose app it is and whether it is still there is asked of the database each time. The copies are for
reading; nobody may change one.
"""

from __future__ import annotations

import threading

from django.db import connection

from accounts.access import may_see
from apps import access
from apps.models import App
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound

_KEPT = 5_000
_BY_ID = "SELECT id, org_id, revision FROM apps_app WHERE id = %s"
_BY_NAME = "SELECT id, org_id, revision FROM apps_app WHERE org_id = %s AND name = %s"
_apps: dict[int, App] = {}
_lock = threading.Lock()


def app(actor: Actor, ref: str) -> App:
    """An app by id, or by name in the actor's org, for reading only. Raises NotFound."""
    by_id = ref.isascii() and ref.isdigit() and len(ref) < 19
    if not by_id and (actor.org_id is None or not access.NAME.fullmatch(ref)):
        return access.app(actor, ref)
    with connection.cursor() as cursor:
        cursor.execute(_BY_ID if by_id else _BY_NAME, [int(ref)] if by_id else [actor.org_id, ref])
        row = cursor.fetchone()
    if row is None or not may_see(actor, row[1]):
        raise NotFound("There is no such app.", next="GET /app")
    kept = _apps.get(row[0])
    if kept is None or kept.revision != row[2]:
        kept = access.app(actor, row[0])
        with _lock:
            if len(_apps) >= _KEPT:
                _apps.clear()
            _apps[kept.pk] = kept
    return kept


def forget() -> None:
    """Between tests, which use the same ids again."""
    with _lock:
        _apps.clear()

"""The database connections of a Django thread: checked after a pause, not before each request.

Owns when a connection is trusted. Django would ask the server before every request, a round trip for each of two
connections, which is most of what a light read costs. One that breaks under load is closed by Django when its error
surfaces (the request answers 503 and may be repeated); one that was idle is checked here first, and one to a server
that another thread has lost is left.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connections

from omni.kernel import clock
from omni.kernel.errors import DatabaseUnavailable

TRUSTED_S = 1.0
_last = threading.local()


def check_idle() -> None:
    """To be called on the thread before each request: closes what did not survive an idle second."""
    for connection in connections.all(initialized_only=True):
        if getattr(connection, "is_on_lost_server", False):
            connection.close()
    now = clock.monotonic()
    if now - getattr(_last, "at", 0.0) > TRUSTED_S:
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None and connection.vendor != "sqlite":
                connection.close_if_unusable_or_obsolete()
                if connection.connection is not None and not connection.is_usable():
                    connection.close()
    _last.at = now


@contextlib.contextmanager
def caught_up(environ: dict[str, Any]) -> Iterator[None]:
    """For a read with `min_index`: its database server first applies what the cluster has committed (DECISIONS 7).

    Matters on Galera only, where the thread that saw the index may have had another server than this one.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    if "min_index=" not in environ["QUERY_STRING"]:
        yield
        return
    try:
        waits = bool(getattr(connection, "mysql_is_mariadb", False))
        if waits:
            _sync_wait(connection, 1)
    except Error as error:
        raise DatabaseUnavailable from error
    try:
        yield
    finally:
        if waits and connection.connection is not None:
            with contextlib.suppress(Error):
                _sync_wait(connection, 0)


def _sync_wait(connection: Any, what: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION wsrep_sync_wait = %s", [what])

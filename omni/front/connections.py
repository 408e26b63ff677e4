"""The database connections of a Django thread: checked after a pause, not before each request.

Owns when a connection is trusted. Django would ask the server before every request, a round trip for each of two
connections, which is most of what a light read costs. One that was idle is checked here first, and so is one on which
the last request met an error: a broken one costs one request (503, may be repeated) and not the next. One to a server
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
    """To be called on the thread before each request: closes what did not survive an idle second, or an error."""
    now = clock.monotonic()
    idle = now - getattr(_last, "at", 0.0) > TRUSTED_S
    _last.at = now
    for connection in connections.all(initialized_only=True):
        if getattr(connection, "is_on_lost_server", False):
            connection.close()
        if connection.connection is None or connection.vendor == "sqlite":
            continue
        if idle or connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()
        if idle and connection.connection is not None and not connection.is_usable():
            connection.close()


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

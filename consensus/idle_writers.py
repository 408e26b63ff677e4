"""On MariaDB: a gate transaction that stands idle for a few seconds is ended by the server.

A leader that froze inside a transaction would otherwise hold its rows for as long as its connection lives (DECISIONS
1). A claimer by itself kills the one that holds the fence's row; beside it there are those that froze before they came
to the fence, with rows of apps and orgs that they had only locked: a limit for writing transactions does not end those.
MySQL has no such variable (docs/operations.md says what that means), SQLite a lock file of its own.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

WRITTEN_S = 2
LOCKED_S = 4  # nobody waits for these but writes to the same app or org: leave a slow process more time


def limit(connection: BaseDatabaseWrapper) -> None:
    """What this connection leaves open and idle is ended from now on."""
    if getattr(connection, "mysql_is_mariadb", False):
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET SESSION idle_write_transaction_timeout = {WRITTEN_S}, idle_transaction_timeout = {LOCKED_S}"
            )


def _on_connect(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.alias == DEFAULT_DB_ALIAS and settings.CONFIG.role != "command":  # which may compute in between
        limit(connection)


def install() -> None:
    connection_created.connect(_on_connect, dispatch_uid="omni-idle-writers")

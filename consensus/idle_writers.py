"""On MariaDB: a gate transaction that stands idle for two seconds is ended by the server.

A leader that froze inside a transaction would otherwise hold the fence's row for as long as its connection lives
(DECISIONS 1); a claimer also kills it by itself. MySQL has no such variable, SQLite a lock file of its own.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

SECONDS = 2


def _limit(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.alias != DEFAULT_DB_ALIAS or settings.CONFIG.role == "command":
        return  # a command (migrate, restore) may compute between two statements
    if getattr(connection, "mysql_is_mariadb", False):
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION idle_write_transaction_timeout = {SECONDS}")


def install() -> None:
    connection_created.connect(_limit, dispatch_uid="omni-idle-writers")

"""Bring both databases, the control plane's and telemetry's, to the current schema. Idempotent, one process at a time.

Several hosts start at once: the first to come migrates, the others wait and find nothing to do. The lock is a
connection's own (MySQL's GET_LOCK), so that it ends with whoever held it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from omni.settings_databases import shares_schema

WAIT_S = 300  # less than the launcher waits for this command
_STEP_S = 10


class Command(BaseCommand):
    help = "migrate the control plane's database and telemetry's"
    requires_system_checks: list[str] = []  # test.sh runs them; every start would import all views for nothing

    def handle(self, *_args: Any, verbosity: int = 1, **_options: Any) -> None:
        with alone(WAIT_S):
            call_command("migrate", interactive=False, verbosity=verbosity)
            if not shares_schema(settings.CONFIG):
                call_command("migrate", database="telemetry", interactive=False, verbosity=verbosity)


@contextlib.contextmanager
def alone(wait_s: int) -> Iterator[None]:
    """Hold the database's migration lock; SQLite serves one host, whose launcher runs one migration at a time."""
    lock = connections.create_connection(DEFAULT_DB_ALIAS)
    if lock.vendor != "mysql":
        yield
        return
    name = f"omni-migrate:{settings.CONFIG.database.name}"[:64]  # locks are the server's, not the database's
    try:
        with lock.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = 3600")
            _wait(cursor, name, wait_s)
        yield
    finally:
        lock.close()


def _wait(cursor: Any, name: str, wait_s: int) -> None:
    """In short waits: a connection that is silent for longer than its read time-out is cut off."""
    for _ in range(max(1, wait_s // _STEP_S)):
        cursor.execute("SELECT GET_LOCK(%s, %s)", [name, min(wait_s, _STEP_S)])
        if cursor.fetchone() == (1,):
            return
    raise CommandError(f"another process has been migrating this database for {wait_s} s")

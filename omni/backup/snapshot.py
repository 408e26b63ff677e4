"""All rows as of one moment, read in pages: however large a table is, memory holds one page.

Owns the read-only snapshot over both databases and the reading. On MySQL one connection reads both when they share a
schema, so that the snapshot is one; on SQLite telemetry's file has a snapshot of its own, taken right after the control
plane's (telemetry is append-only and decides nothing).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q

from omni.backup import tables
from omni.backup.tables import AnyModel
from omni.kernel.tables import TELEMETRY
from omni.settings_databases import shares_schema

_MOST_ROWS = 2_000
_FEWEST_ROWS = 10
_PAGE_BYTES = 4 << 20  # what a page of lines is aimed at


def alias_of(model: AnyModel) -> str:
    """The connection through which the model is read in a snapshot."""
    if tables.is_telemetry(model) and not shares_schema(settings.CONFIG):
        return TELEMETRY
    return DEFAULT_DB_ALIAS


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """Whatever is read inside through `rows` (or the default connection) is as of one moment."""
    aliases = [DEFAULT_DB_ALIAS] + ([] if shares_schema(settings.CONFIG) else [TELEMETRY])
    with contextlib.ExitStack() as stack:
        for alias in aliases:
            stack.enter_context(_of(connections[alias]))
        yield


@contextlib.contextmanager
def _of(connection: BaseDatabaseWrapper) -> Iterator[None]:
    if connection.in_atomic_block:  # a test's own transaction
        yield
        return
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            with contextlib.suppress(OperationalError):  # on Galera: with everything that was acknowledged before
                cursor.execute("SET SESSION wsrep_sync_wait = 1")
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        else:
            cursor.execute("BEGIN DEFERRED")
            cursor.execute("SELECT 1 FROM sqlite_master")  # the snapshot begins with the first read
    try:
        yield
    finally:
        with contextlib.suppress(OperationalError), connection.cursor() as cursor:
            cursor.execute("ROLLBACK")


def rows(model: AnyModel, using: str = "") -> Iterator[tuple[Any, ...]]:
    """Every row, as a tuple in the order of `tables.columns`, by primary key."""
    alias = using or alias_of(model)
    wanted, keys = tables.columns(model), tables.key_columns(model)
    query = model._base_manager.using(alias).order_by(*keys).values_list(*wanted)
    if connections[alias].vendor == "sqlite":
        yield from query.iterator(chunk_size=_MOST_ROWS)  # SQLite steps through the rows by itself
        return
    positions = [wanted.index(key) for key in keys]
    limit, after = _FEWEST_ROWS, Q()
    while page := list(query.filter(after)[:limit]):
        yield from page
        if len(page) < limit:
            return
        after = _beyond(keys, [page[-1][position] for position in positions])
        limit = _next_limit(page)


def _next_limit(page: Sequence[tuple[Any, ...]]) -> int:
    """As many rows as make a page, judged by the last one."""
    size = sum(len(value) if isinstance(value, str) else 16 for row in page for value in row)
    return max(_FEWEST_ROWS, min(_MOST_ROWS, _PAGE_BYTES * len(page) // max(size, 1)))


def _beyond(keys: Sequence[str], values: Sequence[Any]) -> Q:
    """Rows after the one with this key. A row comparison would be shorter, and MySQL would use no index for it."""
    found = Q()
    for depth in range(len(keys)):
        equal = Q(**dict(zip(keys[:depth], values[:depth], strict=True)))
        found |= equal & Q(**{f"{keys[depth]}__gt": values[depth]})
    return found

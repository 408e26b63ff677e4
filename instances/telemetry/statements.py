"""Raw SQL for the telemetry tables, for both databases: bulk inserts and upserts.

Owns the differences between SQLite and MySQL. Values always travel as parameters; table and column names come from
this package alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from omni.kernel.tables import TELEMETRY

ROWS_A_STATEMENT = 500
_AS_RANGE = "IN (%s, -1)"


def connection() -> BaseDatabaseWrapper:
    return connections[TELEMETRY]


def is_mysql() -> bool:
    return connection().vendor == "mysql"


def select(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    if not is_mysql():
        sql = sql.replace(_AS_RANGE, "= %s")
    with connection().cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def execute(sql: str, params: Sequence[Any]) -> int:
    """The number of rows that it touched."""
    with connection().cursor() as cursor:
        cursor.execute(sql, params)
        return int(cursor.rowcount)


def insert(table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, again: str = "ignore") -> None:
    """Insert many rows, 500 a statement. `again`: what a row that is there already means: ignore, replace or error."""
    head, tail = _insert_head(table, again), _insert_tail(columns, again)
    one = "(" + ",".join(["%s"] * len(columns)) + ")"
    with connection().cursor() as cursor:
        for part in chunks(rows, ROWS_A_STATEMENT if is_mysql() else max(1, 30_000 // len(columns))):
            values = ",".join([one] * len(part))
            flat = [value for row in part for value in row]
            cursor.execute(f"{head} ({','.join(columns)}) VALUES {values}{tail}", flat)


def only(column: str) -> str:
    """`column = %s`, in words that MariaDB reads as a range.

    By a plain equality it takes the index's first column alone, and reads everything of the app that is older; SQLite
    is the other way round, so `select` gives it the equality.
    """
    return f"{column} {_AS_RANGE}"


def chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def marks(values: Iterable[Any]) -> str:
    """`%s,%s,…` for an IN list."""
    return ",".join("%s" for _ in values)


def _insert_head(table: str, again: str) -> str:
    if again == "ignore":
        return f"INSERT {'IGNORE' if is_mysql() else 'OR IGNORE'} INTO {table}"
    if again == "replace" and not is_mysql():
        return f"INSERT OR REPLACE INTO {table}"
    return f"INSERT INTO {table}"


def _insert_tail(columns: Sequence[str], again: str) -> str:
    if again == "replace" and is_mysql():
        return " ON DUPLICATE KEY UPDATE " + ",".join(f"{name}=VALUES({name})" for name in columns)
    return ""

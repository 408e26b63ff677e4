"""Several statements at once: in one packet where the database takes them so, one after the other elsewhere.

Owns how they travel and that each result is looked at in its turn. A round trip costs a web thread more than most
statements cost the database: the packet, two switches of context, and the interpreter's lock each way. An error ends
the series, what came before it stays in the transaction (whose owner rolls back). Knows no table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper


@dataclass(frozen=True, slots=True)
class Result:
    """What one statement did: its rows, how many it matched, the key that it made (or its LAST_INSERT_ID(x))."""

    rows: Sequence[tuple[Any, ...]]
    count: int
    key: int | None


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with `%s` and its values. `check` sees the result before any later statement's, and may raise."""

    sql: str
    params: Sequence[Any] = ()
    check: Callable[[Result], None] | None = None


def run(connection: BaseDatabaseWrapper, statements: Sequence[Statement]) -> list[Result]:
    """Run them all, in order. Raises what a check raises, or the database's own error, whichever comes first."""
    if connection.vendor == "mysql" and len(statements) > 1:
        return _in_one_packet(connection, statements)
    results = []
    for statement in statements:
        with connection.cursor() as cursor:
            cursor.execute(statement.sql, statement.params)
            rows = cursor.fetchall() if cursor.description is not None else ()
            results.append(_seen(statement, Result(rows, cursor.rowcount, cursor.lastrowid)))
    return results


def _in_one_packet(connection: BaseDatabaseWrapper, statements: Sequence[Statement]) -> list[Result]:
    sql = ";\n".join([statement.sql for statement in statements])
    results = []
    with connection.cursor() as cursor:  # leaving it throws away the results that nobody took
        cursor.execute(sql, [value for statement in statements for value in statement.params])
        with connection.wrap_database_errors:
            ours: Any = cursor.cursor  # omni.mysql's own
            for position, statement in enumerate(statements):
                if position:
                    ours.nextset()
                results.append(_seen(statement, Result(*ours.outcome())))
            ours.all_read()
    return results


def _seen(statement: Statement, result: Result) -> Result:
    if statement.check is not None:
        statement.check(result)
    return result

"""INSERT with SQL that is composed once per model: for rows on the hottest write paths.

Owns nothing but the statement. Django composes each INSERT anew, which costs more than the database does (300 µs of
360 µs for a row of 27 columns, measured in bench/create.py's profile); the values still pass through each field's own
conversion, so what arrives is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import AutoField, BigAutoField, Field, Model


@lru_cache(maxsize=64)
def _statement(model: type[Model], vendor: str) -> tuple[tuple[Field[Any, Any], ...], str, str]:
    """(fields, head, one row's placeholders). A key that the database makes is left out."""
    fields = tuple(
        field for field in model._meta.local_concrete_fields if not isinstance(field, (AutoField, BigAutoField))
    )
    quote = connections[DEFAULT_DB_ALIAS].ops.quote_name
    columns = ", ".join(quote(str(field.column)) for field in fields)
    head = f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES "  # noqa: S608 - names from our own models
    return fields, head, f"({', '.join(['%s'] * len(fields))})"


def insert(*rows: Model, using: str = DEFAULT_DB_ALIAS) -> None:
    """Insert new rows of one model; a single row gets the key that the database made for it."""
    connection = connections[using]
    fields, head, placeholders = _statement(type(rows[0]), connection.vendor)
    values = [_value(field, row, connection) for row in rows for field in fields]
    with connection.cursor() as cursor:
        cursor.execute(head + ", ".join([placeholders] * len(rows)), values)
        key = cursor.lastrowid
    for row in rows:
        row._state.adding, row._state.db = False, using
    if len(rows) == 1 and rows[0].pk is None:
        rows[0].pk = key


def _value(field: Field[Any, Any], row: Model, connection: Any) -> Any:
    return field.get_db_prep_save(field.pre_save(row, add=True), connection)


def insert_all(rows: Sequence[Model], using: str = DEFAULT_DB_ALIAS) -> None:
    """`insert` for a list that may be empty."""
    if rows:
        insert(*rows, using=using)

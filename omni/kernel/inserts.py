"""INSERT with SQL that is composed once per model and set of columns: for rows on the hottest write paths.

Owns nothing but the statement and the row that it made. Django composes each INSERT anew and converts each value by
three calls, which costs more than the database does (300 µs of 360 µs for a row of 27 columns, measured in
bench/create.py's profile). Here the defaults of the columns that nobody gave stand in the SQL itself, a value that its
field would leave as it is goes as it is, and only the rest pass through the field's own conversion: what arrives is
the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, BigAutoField, Field, Model

from omni.kernel import clock, pipeline
from omni.kernel.pipeline import Statement

Row = TypeVar("Row", bound=Model)
_PLAIN: tuple[tuple[type[Field[Any, Any]], type], ...] = (  # values of that very type, or None, are left alone
    (models.CharField, str),
    (models.TextField, str),
    (models.BooleanField, bool),
    (models.IntegerField, int),
    (models.FloatField, float),
    (models.ForeignKey, int),
)
_UNQUOTED = frozenset("'\"\\%;\0\r\n")


def insert(model: type[Row], *, using: str = DEFAULT_DB_ALIAS, **given: Any) -> Row:
    """A new row by the names of its columns (`org_id`), with the key that the database made. Raises IntegrityError."""
    (result,) = pipeline.run(connections[using], [statement(model, using=using, **given)])
    row = new(model, **given)
    if row.pk is None:
        row.pk = result.key
    row._state.adding, row._state.db = False, using
    return row


def statement(model: type[Model], *, using: str = DEFAULT_DB_ALIAS, **given: Any) -> Statement:
    """The INSERT alone, for a row whose key nobody waits for."""
    connection = connections[using]
    shape = _shape(model, tuple(given), connection.vendor)
    values = zip(shape.given, given.values(), strict=True)
    params = [value if type(value) in one.plain else one.convert(value, connection) for one, value in values]
    params += [convert(connection) for convert in shape.defaults]
    return Statement(shape.sql, params)


def new(model: type[Row], **given: Any) -> Row:
    """`model(**given)`, not written; Django looks every field up by name each time."""
    defaults = _defaults(model)
    if unknown := given.keys() - defaults.keys():
        raise TypeError(f"{model.__name__} has no {', '.join(sorted(unknown))}")
    return model(*[given[name] if name in given else default() for name, default in defaults.items()])


@lru_cache(maxsize=64)
def _defaults(model: type[Model]) -> dict[str, Callable[[], Any]]:
    return {str(field.attname): field.get_default for field in model._meta.concrete_fields}


@dataclass(frozen=True, slots=True)
class _Given:
    """How a given value gets into the statement."""

    plain: frozenset[type]
    convert: Callable[[Any, BaseDatabaseWrapper], Any]


@dataclass(frozen=True, slots=True)
class _Shape:
    """The statement for one set of columns: first the given ones, then the defaults that SQL cannot spell."""

    sql: str
    given: tuple[_Given, ...]
    defaults: tuple[Callable[[BaseDatabaseWrapper], Any], ...]


@lru_cache(maxsize=256)
def _shape(model: type[Model], names: tuple[str, ...], vendor: str) -> _Shape:
    """A key that the database makes is left out unless it is given."""
    fields = {str(field.attname): field for field in model._meta.local_concrete_fields}
    if unknown := set(names) - set(fields):
        raise TypeError(f"{model.__name__} has no {', '.join(sorted(unknown))}")
    columns = [fields[name].column for name in names]
    values = ["%s"] * len(names)
    defaults = []
    for name, field in fields.items():
        if name in names or isinstance(field, (AutoField, BigAutoField)):
            continue
        literal = _literal(field.get_default()) if field.has_default() or field.null else ""
        if not literal:
            defaults.append(_default(field))
        columns.append(field.column)
        values.append(literal or "%s")
    quote = connections[DEFAULT_DB_ALIAS].ops.quote_name
    listed = ", ".join(quote(str(column)) for column in columns)
    sql = f"INSERT INTO {quote(model._meta.db_table)} ({listed}) VALUES ({', '.join(values)})"  # noqa: S608 - our names
    return _Shape(sql, tuple(_given(fields[name]) for name in names), tuple(defaults))


def _given(field: Field[Any, Any]) -> _Given:
    kinds = [kind for base, kind in _PLAIN if isinstance(field, base)]

    def convert(value: Any, connection: BaseDatabaseWrapper) -> Any:
        if type(value) is dt.datetime and value.tzinfo is not None and isinstance(field, models.DateTimeField):
            return clock.sql(value)
        return field.get_db_prep_save(value, connection)

    return _Given(frozenset([*kinds, type(None)] if kinds else ()), convert)


def _default(field: Field[Any, Any]) -> Callable[[BaseDatabaseWrapper], Any]:
    return lambda connection: field.get_db_prep_save(field.get_default(), connection)


def _literal(value: Any) -> str:
    """A field's default in SQL, where that is the same in every database; else nothing."""
    if value is None:
        return "NULL"
    if isinstance(value, (bool, int)):
        return str(int(value))
    if isinstance(value, float):
        return repr(value)
    if value in ({}, []):
        return "'{}'" if value == {} else "'[]'"
    return f"'{value}'" if isinstance(value, str) and not _UNQUOTED & set(value) else ""

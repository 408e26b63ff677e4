"""Which tables a backup holds, and how a row becomes a line and a line a row.

Owns the choice (everything but what is made anew: sessions, log-in throttling, Django's own bookkeeping of migrations,
and the fence, which the manifest carries) and the encoding: JSON with sorted keys, so that equal rows are equal bytes
on every database. Must not open a database.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from django.apps.registry import Apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import CompositePrimaryKey, DateTimeField, Field, JSONField, Model

from omni.kernel.tables import TELEMETRY_MODELS

LEFT_OUT = frozenset(
    {
        "sessions.session",  # losing one means logging in again
        "axes.accessattempt",
        "axes.accessfailurelog",
        "axes.accesslog",
        "axes.accessattemptexpiration",
        "consensus.fence",  # in the manifest; a restore makes its own
    }
)
# Made by `migrate` in every database: their presence does not mean that somebody uses it.
MADE_BY_MIGRATE = frozenset({"contenttypes.contenttype", "auth.permission"})

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
AnyModel = type[Model]


def models(registry: Apps, *, telemetry: bool = True) -> list[AnyModel]:
    """What a backup holds, in a fixed order. `registry` may be that of an earlier state of the migrations."""
    found = [
        model
        for model in registry.get_models(include_auto_created=True)
        if model._meta.managed and not model._meta.proxy and model._meta.label_lower not in LEFT_OUT
    ]
    found.sort(key=lambda model: (is_telemetry(model), model._meta.label_lower))
    return [model for model in found if telemetry or not is_telemetry(model)]


def is_telemetry(model: AnyModel) -> bool:
    return model._meta.label_lower in TELEMETRY_MODELS


def part_name(model: AnyModel) -> str:
    return f"rows/{model._meta.label_lower}.jsonl"


def columns(model: AnyModel) -> list[str]:
    """The attributes that are stored, in a fixed order."""
    return sorted(field.attname for field in model._meta.concrete_fields)


def key_columns(model: AnyModel) -> list[str]:
    """The attributes that make the primary key, most significant first."""
    key: Any = model._meta.pk
    fields: Any = key.fields if isinstance(key, CompositePrimaryKey) else [key]
    return [field.attname for field in fields]


def encode(row: Sequence[Any]) -> bytes:
    """One line."""
    return orjson.dumps(row, option=_OPTIONS)


class Decoder:
    """Lines of one table as parameters for its INSERT on one database."""

    def __init__(self, model: AnyModel, given: Sequence[str], connection: BaseDatabaseWrapper) -> None:
        fields = {field.attname: field for field in model._meta.concrete_fields}
        unknown = sorted(set(given) ^ set(fields))
        if unknown:
            raise ValueError(f"{model._meta.label}: the columns {', '.join(unknown)} do not match")
        self.fields = [fields[name] for name in given]
        self._conversions = [
            (position, conversion)
            for position, field in enumerate(self.fields)
            if (conversion := _conversion(field, connection)) is not None
        ]

    def row(self, line: bytes) -> list[Any]:
        """Raises ValueError for what is no row of this table."""
        values = orjson.loads(line)
        if not isinstance(values, list) or len(values) != len(self.fields):
            raise ValueError(f"a row of {len(self.fields)} values is wanted")
        for position, convert in self._conversions:
            if values[position] is not None:
                values[position] = convert(values[position])
        return values


def _conversion(field: Field[Any, Any], connection: BaseDatabaseWrapper) -> Callable[[Any], Any] | None:
    """From JSON to what the database's driver takes; None where they are the same."""
    if isinstance(field, DateTimeField):
        return lambda text: connection.ops.adapt_datetimefield_value(dt.datetime.fromisoformat(text))
    if isinstance(field, JSONField):
        return lambda value: field.get_db_prep_save(value, connection)
    return None

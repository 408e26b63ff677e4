"""Refuses, in code, every write to a control-plane table outside a gate transaction.

Owns the check on each SQL statement. Default deny: only the tables listed in `omni.kernel.tables` are free. Reads and
DDL pass (`migrate` runs under `gate.maintenance`). A safety net for our own mistakes, not a security boundary.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from omni.kernel.tables import UNGATED_TABLES

_FIRST_WORDS = ("INS", "UPD", "DEL", "REP", "WIT", "TRU")
_TABLE = re.compile(
    r"^\s*(?:INSERT\s+(?:OR\s+\w+\s+|IGNORE\s+)?INTO|REPLACE\s+INTO|UPDATE(?:\s+OR\s+\w+)?|DELETE\s+FROM|"
    r"TRUNCATE(?:\s+TABLE)?)\s+[`\"]?(\w+)[`\"]?",
    re.IGNORECASE,
)
_WITH_WRITE = re.compile(r"\b(INSERT|UPDATE|DELETE)\b", re.IGNORECASE)


class UngatedWrite(RuntimeError):
    """A bug of ours: a control-plane table was about to be written outside the gate."""


def written_table(sql: str) -> str | None:
    """The table that a statement writes, `"?"` for a write that cannot be read, None for a read."""
    if sql.lstrip()[:3].upper() not in _FIRST_WORDS:
        return None
    found = _TABLE.match(sql)
    if found:
        return found.group(1).lower()
    if sql.lstrip()[:4].upper() == "WITH" and not _WITH_WRITE.search(sql):
        return None
    return "?"


def guard(
    execute: Callable[[str, Any, bool, dict[str, Any]], Any], sql: str, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    for statement in sql.split(";") if ";" in sql else (sql,):  # several may share a packet (omni.kernel.pipeline)
        table = written_table(statement)
        if table is not None and table not in UNGATED_TABLES:
            permit = getattr(context["connection"], "omni_write_permit", None)
            if permit is None:
                raise UngatedWrite(f"{table} was to be written outside a gate transaction: {sql[:120]}")
            permit.wrote(table)
    return execute(sql, params, many, context)


def _attach(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.alias == DEFAULT_DB_ALIAS and guard not in connection.execute_wrappers:
        connection.execute_wrappers.append(guard)


def install() -> None:
    connection_created.connect(_attach, dispatch_uid="omni-write-guard")

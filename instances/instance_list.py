"""One page of an app's instances, read by two statements made by hand.

Owns the query behind `GET /app/<app>/instances`: the list that consoles poll. Those that run a task are not in it.
Composing it by the ORM costs more than running it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connection

from instances.states import InstanceStatus
from instances.telemetry import statements as sql
from instances.telemetry.figures import FRESH_US
from omni.kernel import clock
from omni.rest.paging import refused

_SELECT = (
    "SELECT i.id, i.slot, i.status, i.health, i.desired, r.version, r.number, n.name, i.address, i.restarts, "
    # as text, which costs the database less than the driver's dates cost us
    "CAST(i.started_at AS CHAR), CAST(i.created_at AS CHAR), CAST(i.finished_at AS CHAR), i.revision, i.process_type "
    "FROM instances_instance i "
    "JOIN releases_release r ON r.id = i.release_id LEFT JOIN instances_node n ON n.id = i.node_id "
    "WHERE i.app_id = %s AND i.task_id IS NULL"
)
_LATEST = "SELECT instance_id, cpu_percent, memory_bytes FROM instances_latestsample WHERE app_id = %s AND at_us > %s"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The conditions of a query string, as SQL and its values."""

    where: str
    values: tuple[Any, ...]


def chosen(query: Mapping[str, str]) -> Chosen:
    """`status`, `node`, `version`, `process_type`. Without `status`: what runs, is to run, or waits for a successor."""
    where, values = "", []
    status = query.get("status")
    if not status:
        where += " AND i.desired IN ('run', 'stop')"
    elif status != "all":
        wanted = status.split(",")
        if unknown := [part for part in wanted if part not in InstanceStatus.values]:
            raise refused("status", f"{unknown[0]} is none of {', '.join(InstanceStatus.values)}, all.")
        where += f" AND i.status IN ({sql.marks(wanted)})"
        values += wanted
    for name, column in (("node", "n.name"), ("version", "r.version"), ("process_type", "i.process_type")):
        if given := query.get(name):
            where += f" AND {column} = %s"
            values.append(given)
    return Chosen(where, tuple(values))


def read(app_id: int, what: Chosen, limit: int, *, before: int | None, after: int | None) -> list[tuple[Any, ...]]:
    """Newest first; `before` and `after` are ids. One row more than `limit` tells that there are more."""
    statement, values = _SELECT + what.where, [app_id, *what.values]
    if before is not None:
        statement, values = statement + " AND i.id < %s", [*values, before]
    if after is not None:
        statement, values = statement + " AND i.id > %s", [*values, after]
    order = "ASC" if after is not None else "DESC"
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} ORDER BY i.id {order} LIMIT %s", [*values, limit + 1])
        return list(cursor.fetchall())


def show(app_id: int, rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """With the newest figures of those that run; null where nobody measured."""
    now = clock.now()
    measured = {}
    if any(row[2] == InstanceStatus.RUNNING for row in rows):
        found = sql.select(_LATEST, [app_id, clock.to_us(now) - FRESH_US])
        measured = {row[0]: (row[1], row[2]) for row in found}
    now = now.replace(tzinfo=None)
    return [_shown(row, measured.get(row[0], (None, None)), now) for row in rows]


def _shown(row: tuple[Any, ...], figures: tuple[Any, Any], now: dt.datetime) -> dict[str, Any]:
    running, started = row[2] == InstanceStatus.RUNNING, row[10]
    return {
        "id": row[0],
        "process_type": row[14],
        "slot": row[1],
        "status": row[2],
        "health": row[3],
        "desired": row[4],
        "version": row[5],
        "release": row[6],
        "node": row[7],
        "address": row[8] or None,
        "cpu_percent": figures[0] if running else None,
        "memory_bytes": figures[1] if running else None,
        "restarts": row[9],
        "uptime_s": round((now - dt.datetime.fromisoformat(started)).total_seconds(), 3)
        if running and started
        else None,
        "started_at": _time(started),
        "created_at": _time(row[11]),
        "finished_at": _time(row[12]),
        "revision": row[13],
    }


def moment(stored: Any) -> dt.datetime | None:
    """A time as a hand-made statement returns it: text from SQLite, naive from MySQL; both are UTC."""
    if stored is None:
        return None
    found = dt.datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    return found.replace(tzinfo=dt.UTC)


def _time(stored: str | None) -> str | None:
    """RFC 3339 from a database's text, which is UTC; SQLite leaves out microseconds that are 0."""
    if stored is None:
        return None
    return f"{stored[:10]}T{stored[11:]}{'Z' if len(stored) == 26 else '.000000Z'}"

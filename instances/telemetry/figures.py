"""The light figures of one app and of its instances: what fast polling reads.

Owns `figures`: three short queries by primary or covering key, whatever the number of apps; kept for a second in
this process, so that a page polled by many costs the database one reading a second. A figure nobody measured is null.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any

import orjson
from django.db import connection as default_connection

from apps import processes
from instances.telemetry import quantiles
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.rest.rendering import dumps

CACHE_S = 1.0
FRESH_US = 20_000_000  # a sample older than this says nothing about now
REQUESTS_US = 30_000_000  # requests per second are an average over this
_CACHE_SIZE = 20_000
_cache: dict[int, tuple[float, Figures | None]] = {}
_lock = threading.Lock()

_APP = (
    "SELECT a.org_id, a.instances, a.desired_state, a.process_counts, a.process_types, i.id, i.status, i.health, "
    "i.restarts, i.process_type FROM apps_app a "
    "LEFT JOIN instances_instance i ON i.app_id = a.id AND i.desired = 'run' "
    "AND i.status IN ('starting', 'running', 'crashed') AND i.task_id IS NULL WHERE a.id = %s"
)
_LATEST = (
    "SELECT instance_id, cpu_percent, memory_bytes, memory_limit_bytes, network_rx_bytes, network_tx_bytes "
    "FROM instances_latestsample WHERE app_id = %s AND at_us > %s"
)
_REQUESTS = (
    f"SELECT requests, failed, histogram FROM instances_requestsample "  # noqa: S608
    f"WHERE {sql.only('app_id')} AND at_us > %s AND step_s = 5"
)
_ANY_REQUEST = "SELECT 1 FROM instances_requestsample WHERE app_id = %s LIMIT 1"


@dataclass(frozen=True, slots=True)
class Figures:
    """One app's figures as they are answered, and whose app it is."""

    org_id: int
    body: dict[str, Any]
    json: bytes
    tag: str


def app_metrics(app_id: int) -> dict[str, Any]:
    """The body of `GET /app/<app>/metrics`, at most a second old."""
    found = figures(app_id)
    return found.body if found is not None else {}


def figures(app_id: int) -> Figures | None:
    """At most a second old; None when there is no such app."""
    now = clock.monotonic()
    known = _cache.get(app_id)
    if known is not None and known[0] > now:
        return known[1]
    found = read_app(app_id)
    with _lock:
        if len(_cache) >= _CACHE_SIZE:
            _cache.clear()
        _cache[app_id] = (now + CACHE_S, found)
    return found


def forget() -> None:
    """Between tests."""
    with _lock:
        _cache.clear()


def read_app(app_id: int) -> Figures | None:
    at = clock.now()
    now_us = clock.to_us(at)
    with default_connection.cursor() as cursor:
        cursor.execute(_APP, [app_id])
        rows = cursor.fetchall()
    if not rows:
        return None
    org_id, count, state = rows[0][:3]
    counts, types = (orjson.loads(part) if isinstance(part, (str, bytes)) else part for part in rows[0][3:5])
    wanted = processes.wanted(count if state == "running" else 0, counts if state == "running" else {}, types)
    instances = [row[5:] for row in rows if row[5] is not None]
    running = {row[0] for row in instances if row[1] == "running"}
    latest = [row for row in sql.select(_LATEST, [app_id, now_us - FRESH_US]) if row[0] in running]
    body = {
        "app_id": app_id,
        "at": clock.rfc3339(at),
        "instances": _counted(sum(wanted.values()), instances),
        "processes": {
            name: _counted(wanted.get(name, 0), [row for row in instances if row[4] == name])
            for name in sorted({*wanted, *(row[4] for row in instances)})
        },
        "cpu_percent": _sum(latest, 1, digits=2),
        "memory_bytes": _sum(latest, 2),
        "memory_limit_bytes": _sum(latest, 3),
        "network_rx_bytes": _sum(latest, 4),
        "network_tx_bytes": _sum(latest, 5),
        **requests_of(app_id, now_us),
        "restarts": sum(row[3] for row in instances),
    }
    shown = dumps(body)
    return Figures(org_id, body, shown, f'"{hashlib.blake2b(shown, digest_size=8).hexdigest()}"')


def _counted(desired: int, instances: list[tuple[Any, ...]]) -> dict[str, int]:
    running = [row for row in instances if row[1] == "running"]
    return {"desired": desired, "running": len(running), "healthy": sum(1 for row in running if row[2] == "healthy")}


def requests_of(app_id: int, now_us: int) -> dict[str, Any]:
    rows = sql.select(_REQUESTS, [app_id, now_us - REQUESTS_US])
    nothing = {"requests_per_second": None, "error_rate": None, "response_ms": {"p50": None, "p95": None, "p99": None}}
    if not rows:
        # an ingress that has counted for this app before and is silent now means: no requests
        return {**nothing, "requests_per_second": 0.0} if sql.select(_ANY_REQUEST, [app_id]) else nothing
    requests, failed = sum(row[0] for row in rows), sum(row[1] for row in rows)
    return {
        "requests_per_second": round(requests / (REQUESTS_US / 1e6), 3),
        "error_rate": round(failed / requests, 5) if requests else None,
        "response_ms": quantiles.response_ms(histogram_of(row[2]) for row in rows),
    }


def histogram_of(stored: Any) -> list[int]:
    found = orjson.loads(stored) if isinstance(stored, (str, bytes)) else stored
    return found if isinstance(found, list) else []


def _sum(rows: list[tuple[Any, ...]], column: int, digits: int | None = None) -> Any:
    values = [row[column] for row in rows if row[column] is not None]
    if not values:
        return None
    return round(float(sum(values)), digits) if digits is not None else int(sum(values))

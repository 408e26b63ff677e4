"""History of figures: `?window=&step=` for an instance or an app.

Owns the shape of a series: points at whole steps, null where nobody measured. Reads the stored resolution that fits.
"""

from __future__ import annotations

from typing import Any

from instances.telemetry import quantiles
from instances.telemetry import statements as sql
from instances.telemetry.figures import histogram_of
from instances.telemetry.spans import Span
from omni.kernel import clock

_NAMES = ("cpu_percent", "cpu_percent_max", "memory_bytes", "memory_bytes_max", "network_rx_bytes", "network_tx_bytes")
_SELECT = (
    "SELECT at_us - (at_us %% %s) AS bucket, instance_id, AVG(cpu_percent), MAX(cpu_percent_max), AVG(memory_bytes), "
    "MAX(memory_bytes_max), MAX(network_rx_bytes), MAX(network_tx_bytes) FROM instances_sample WHERE "
)
_WHEN = " AND step_s = %s AND at_us >= %s GROUP BY bucket, instance_id"
_BY = {column: _SELECT + sql.only(column) + _WHEN for column in ("instance_id", "app_id")}

_HOST_NAMES = ("cpu_percent", "cpu_percent_max", "memory_used_bytes", "memory_used_bytes_max", "memory_total_bytes",
               "disk_free_bytes", "load_1m")  # fmt: skip
_HOST = (
    "SELECT at_us - (at_us %% %s) AS bucket, AVG(cpu_percent), MAX(COALESCE(cpu_percent_max, cpu_percent)), "
    "AVG(memory_used_bytes), MAX(COALESCE(memory_used_bytes_max, memory_used_bytes)), MAX(memory_total_bytes), "
    "MIN(disk_free_bytes), AVG(load_1m) FROM instances_hostsample WHERE node = %s AND step_s = %s AND at_us >= %s "
    "GROUP BY bucket"
)
_REQUESTS = (
    f"SELECT at_us - (at_us %% %s), requests, failed, histogram FROM instances_requestsample "  # noqa: S608
    f"WHERE {sql.only('app_id')} AND at_us >= %s AND step_s = %s"
)


def of_instance(instance_id: int, span: Span) -> dict[str, Any]:
    shown = _shown(span, _figures("instance_id", instance_id, span))
    for point in shown["points"]:
        del point["_at_us"]
    return shown


def of_host(node: str, span: Span) -> dict[str, Any]:
    """Averages and maxima of a host; the least free disk, which is what runs out."""
    since = clock.to_us(clock.now()) - span.window_us
    found = {
        int(bucket): {
            "cpu_percent": round(float(cpu), 2),
            "cpu_percent_max": round(float(cpu_max), 2),
            "memory_used_bytes": int(used),
            "memory_used_bytes_max": int(used_max),
            "memory_total_bytes": int(total),
            "disk_free_bytes": int(disk),
            "load_1m": round(float(load), 2),
        }
        for bucket, cpu, cpu_max, used, used_max, total, disk, load in sql.select(
            _HOST, [span.step_us, node, span.source_step_s, since]
        )
    }
    shown = _shown(span, found, _HOST_NAMES)
    for point in shown["points"]:
        del point["_at_us"]
    return shown


def of_app(app_id: int, span: Span) -> dict[str, Any]:
    """CPU, memory and network are summed over the instances; requests come from the ingress."""
    shown = _shown(span, _figures("app_id", app_id, span))
    requests = _requests(app_id, span)
    for point in shown["points"]:
        at_us = point.pop("_at_us")
        point.update(requests.get(at_us, {"requests_per_second": None, "error_rate": None, "p95_ms": None}))
    return shown


def _shown(span: Span, found: dict[int, dict[str, Any]], names: tuple[str, ...] = _NAMES) -> dict[str, Any]:
    end = clock.to_us(clock.now())
    first = (end - span.window_us) // span.step_us * span.step_us + span.step_us
    empty: dict[str, Any] = dict.fromkeys(names)
    points = []
    for at_us in range(first, end + 1, span.step_us):
        point = {"at": clock.rfc3339(clock.from_us(at_us)), **found.get(at_us, empty)}
        points.append({"_at_us": at_us, **point})
    return {"window_s": span.window_us / 1e6, "step_s": span.step_us / 1e6, "points": points}


def _figures(column: str, value: int, span: Span) -> dict[int, dict[str, Any]]:
    """Averages and maxima per instance and step, then summed over instances."""
    since = clock.to_us(clock.now()) - span.window_us
    rows = sql.select(_BY[column], [span.step_us, value, span.source_step_s, since])
    found: dict[int, dict[str, Any]] = {}
    for bucket, _, *figures in rows:
        point = found.setdefault(int(bucket), dict.fromkeys(_NAMES))
        for name, figure in zip(_NAMES, figures, strict=True):
            if figure is not None:
                number = round(float(figure), 2) if name.startswith("cpu") else int(figure)
                point[name] = number if point[name] is None else point[name] + number
    return found


def _requests(app_id: int, span: Span) -> dict[int, dict[str, Any]]:
    since = clock.to_us(clock.now()) - span.window_us
    rows = sql.select(
        _REQUESTS,
        [span.step_us, app_id, since, span.source_step_s],
    )
    grouped: dict[int, list[tuple[Any, ...]]] = {}
    for bucket, *row in rows:
        grouped.setdefault(int(bucket), []).append(tuple(row))
    found = {}
    for bucket, counted in grouped.items():
        requests, failed = sum(row[0] for row in counted), sum(row[1] for row in counted)
        counts = quantiles.total(histogram_of(row[2]) for row in counted)
        found[bucket] = {
            "requests_per_second": round(requests / (span.step_us / 1e6), 3),
            "error_rate": round(failed / requests, 5) if requests else None,
            "p50_ms": quantiles.quantile(counts, 0.5),
            "p95_ms": quantiles.quantile(counts, 0.95),
            "p99_ms": quantiles.quantile(counts, 0.99),
        }
    return found

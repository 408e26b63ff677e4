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

_REQUESTS = (
    f"SELECT at_us - (at_us %% %s), requests, failed, histogram FROM instances_requestsample "  # noqa: S608
    f"WHERE {sql.only('app_id')} AND at_us >= %s"
)


def of_instance(instance_id: int, span: Span) -> dict[str, Any]:
    shown = _shown(span, _figures("instance_id", instance_id, span))
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


def _shown(span: Span, found: dict[int, dict[str, Any]]) -> dict[str, Any]:
    end = clock.to_us(clock.now())
    first = (end - span.window_us) // span.step_us * span.step_us + span.step_us
    empty: dict[str, Any] = dict.fromkeys(_NAMES)
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
        [span.step_us, app_id, since],
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
            "p95_ms": quantiles.quantile(counts, 0.95),
        }
    return found

"""What the plots draw, as columns of numbers: time in seconds, then one column a line, null where nobody measured."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse

from apps import access
from instances import access as instance_access
from instances.models import Deployment
from instances.telemetry import series, spans
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.pages import words
from omni.pages.frame import page

_WINDOWS = {"15m": "10s", "1h": "20s", "6h": "2m", "24h": "10m", "7d": "60m"}
_APP = ("cpu_percent", "memory_bytes", "requests_per_second", "error_rate", "p50_ms", "p95_ms", "p99_ms")
_MARKED = 40
_HOSTS = (
    "SELECT at_us - (at_us %% %s) AS bucket, node, AVG(cpu_percent), AVG(memory_used_bytes), MAX(memory_total_bytes) "
    "FROM instances_hostsample WHERE step_s = %s AND at_us >= %s{} GROUP BY bucket, node"
)


def _span(request: HttpRequest) -> spans.Span:
    window = request.GET.get("window", "1h")
    window = window if window in _WINDOWS else "1h"
    found = spans.read(window, _WINDOWS[window])
    assert found is not None  # noqa: S101
    return found


def _answer(body: dict[str, Any]) -> HttpResponse:
    return HttpResponse(orjson.dumps(body), content_type="application/json", headers={"Cache-Control": "no-store"})


@page("apps:read")
def of_app(request: HttpRequest, actor: Actor, app: str) -> HttpResponse:
    """One app's figures and the moments of its deployments."""
    found, span = access.app(actor, app), _span(request)
    points = series.of_app(found.pk, span)["points"]
    since = clock.from_us(clock.to_us(clock.now()) - span.window_us)
    rows = Deployment.objects.filter(app=found, created_at__gte=since).select_related("release").order_by("-id")
    marks = [
        {"at": row.created_at.timestamp(), "label": f"{row.kind} {row.release.version if row.release else ''}".strip(),
         "status": row.status}
        for row in rows[:_MARKED]
    ]  # fmt: skip
    limit = found.memory_mb * found.instances << 20
    columns: dict[str, list[Any]] = {name: [point.get(name) for point in points] for name in _APP}
    columns["memory_limit"] = [limit] * len(points)
    columns["error_percent"] = [None if rate is None else rate * 100 for rate in columns.pop("error_rate")]
    return _answer({"at": [_seconds(point["at"]) for point in points], "columns": columns, "marks": marks})


@page("platform:read")
def of_platform(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Processor and memory of the hosts. Nodes of one host measure the same host: each counts once."""
    return _hosts(_span(request), None)


def _hosts(span: spans.Span, node: str | None) -> HttpResponse:
    now = clock.to_us(clock.now())
    only, values = (" AND node = %s", [node]) if node is not None else ("", [])
    rows = sql.select(_HOSTS.format(only), [span.step_us, span.source_step_s, now - span.window_us, *values])
    found: dict[int, dict[str, tuple[float, float, float]]] = {}
    for bucket, node, cpu, used, total in rows:
        host = str(node).rpartition("-")[0]
        found.setdefault(int(bucket), {})[host] = (float(cpu), float(used), float(total))
    at, cpu_column, used_column, total_column = list[float](), list[Any](), list[Any](), list[Any]()
    first = (now - span.window_us) // span.step_us * span.step_us + span.step_us
    for bucket in range(first, now + 1, span.step_us):
        hosts = found.get(bucket, {}).values()
        at.append(bucket / 1e6)
        cpu_column.append(sum(one[0] for one in hosts) / len(hosts) if hosts else None)
        used_column.append(sum(one[1] for one in hosts) if hosts else None)
        total_column.append(sum(one[2] for one in hosts) if hosts else None)
    columns = {"cpu_percent": cpu_column, "memory_bytes": used_column, "memory_limit": total_column}
    return _answer({"at": at, "columns": columns, "marks": []})


@page("instances:read")
def of_instance(request: HttpRequest, actor: Actor, app: str, instance: int) -> HttpResponse:
    row, span = instance_access.instance(actor, app, instance), _span(request)
    points = series.of_instance(row.pk, span)["points"]
    columns = {name: [point.get(name) for point in points] for name in ("cpu_percent", "memory_bytes")}
    columns["memory_limit"] = [row.memory_mb << 20] * len(points)
    return _answer({"at": [_seconds(point["at"]) for point in points], "columns": columns, "marks": []})


@page("platform:read")
def of_node(request: HttpRequest, actor: Actor, node: str) -> HttpResponse:
    """The figures of the host that the node is on."""
    return _hosts(_span(request), instance_access.node(node).name)


def _seconds(text: str) -> float:
    found = words.moment(text)
    return found.timestamp() if found else 0.0

"""Prometheus text: what this member measured, and the newest figures of its node, its instances, and (leader) the apps.

Owns the names and labels of what is not counted by a process. A figure that nobody measured is left out, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.db import Error
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from apps.models import App
from consensus import gate
from instances.models import Instance
from instances.states import ON_NODE
from instances.telemetry import figures, quantiles
from instances.telemetry import statements as sql
from omni.api import measured
from omni.kernel import clock

MOST_INSTANCES = 5_000
_HOST = (
    "SELECT cpu_percent, memory_used_bytes, memory_total_bytes, disk_free_bytes, load_1m FROM instances_hostsample "
    "WHERE node = %s AND step_s = 5 AND at_us > %s ORDER BY at_us DESC LIMIT 1"
)
_HOST_NAMES = ("cpu_percent", "memory_used_bytes", "memory_total_bytes", "disk_free_bytes", "load1")
_LATEST = (
    "SELECT instance_id, cpu_percent, memory_bytes, memory_limit_bytes, restarts FROM instances_latestsample "
    "WHERE at_us > %s AND instance_id IN "
)
_INSTANCE_NAMES = ("cpu_percent", "memory_bytes", "memory_limit_bytes", "restarts")
_REQUESTS = "SELECT app_id, requests, failed, histogram FROM instances_requestsample WHERE step_s = 5 AND at_us > %s"


def text() -> bytes:
    registry = CollectorRegistry()
    registry.register(_Everything())
    return bytes(generate_latest(registry))


class _Everything(Collector):
    def collect(self) -> Iterable[Metric]:
        yield from measured.counted()
        yield from _gauges()
        now_us = clock.to_us(clock.now())
        try:
            yield from _host(now_us)
            yield from _instances(now_us)
            if gate.leads():
                yield from _apps(now_us)
        except Error:
            return  # the database is away: what the processes counted is told all the same


def _gauges() -> Iterator[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for reading in measured.readings():
        labels = sorted(reading.labels)
        family = families.get(reading.name)
        if family is None:
            family = families[reading.name] = GaugeMetricFamily(reading.name, reading.meaning, labels=labels)
        family.add_metric([reading.labels[name] for name in labels], reading.value)
    return iter(families.values())


def _host(now_us: int) -> Iterator[Metric]:
    node = settings.CONFIG.me.id
    rows = sql.select(_HOST, [node, now_us - figures.FRESH_US])
    for name, value in zip(_HOST_NAMES, rows[0] if rows else (), strict=False):
        family = GaugeMetricFamily(f"omni_node_{name}", f"Host of a node: {name}", labels=["node"])
        family.add_metric([node], float(value))
        yield family


def _instances(now_us: int) -> Iterator[Metric]:
    """Of this member's node."""
    running = Instance.objects.filter(node__name=settings.CONFIG.me.id, status__in=ON_NODE)
    rows = running.order_by("id").values_list("id", "app__name", "app__org__name")[:MOST_INSTANCES]
    owners = {str(pk): (app, org) for pk, app, org in rows}
    families = [
        GaugeMetricFamily(f"omni_instance_{name}", f"Instance: {name}", labels=["org", "app", "instance"])
        for name in _INSTANCE_NAMES
    ]
    for part in sql.chunks([int(pk) for pk in owners], 500):
        for instance_id, *values in sql.select(
            f"{_LATEST}({sql.marks(part)})",
            [now_us - figures.FRESH_US, *part],
        ):
            app, org = owners[str(instance_id)]
            for family, value in zip(families, values, strict=True):
                if value is not None:
                    family.add_metric([org, app, str(instance_id)], float(value))
    return iter(families)


def _apps(now_us: int) -> Iterator[Metric]:
    """Requests by app over the last half minute, of all ingresses; told by the leader."""
    grouped: dict[int, list[tuple[Any, ...]]] = {}
    for app_id, *row in sql.select(_REQUESTS, [now_us - figures.REQUESTS_US]):
        grouped.setdefault(app_id, []).append(tuple(row))
    names = ["org", "app"]
    rate = GaugeMetricFamily("omni_app_requests_per_second", "Requests that ended, over half a minute", labels=names)
    errors = GaugeMetricFamily("omni_app_error_ratio", "Share of them with a status of 500 or more", labels=names)
    latency = GaugeMetricFamily("omni_app_response_seconds", "Response time", labels=[*names, "quantile"])
    for app_id, app, org in App.objects.filter(pk__in=grouped).values_list("id", "name", "org__name"):
        rows = grouped[app_id]
        requests = sum(row[0] for row in rows)
        rate.add_metric([org, app], requests / (figures.REQUESTS_US / 1e6))
        if requests:
            errors.add_metric([org, app], sum(row[1] for row in rows) / requests)
        counts = quantiles.total(figures.histogram_of(row[2]) for row in rows)
        for share in (0.5, 0.95, 0.99):
            value = quantiles.quantile(counts, share)
            if value is not None:
                latency.add_metric([org, app, str(share)], value / 1000)
    return iter((rate, errors, latency))

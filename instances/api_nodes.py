"""`/nodes`: capacity, what is allocated, what runs there; drain and activate. The platform's own, so by scope alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.db.models import Count, Sum
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from consensus.gate import Transaction
from instances import access, observe, representation, services
from instances.models import HostSample, Instance, Node, Volume
from instances.preview import play
from instances.states import ON_NODE
from instances.telemetry import series, spans
from instances.telemetry.spans import SERIES_PARAMETERS
from omni.kernel import clock
from omni.kernel.clock import rfc3339
from omni.rest.paging import page
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform

_FIELDS = ("id", "name", "address", "status", "status_since", "draining", "ingress", "labels", "cpu_count",
           "memory_mb", "facts", "created_at", "revision")  # fmt: skip
_FRESH_US = 60_000_000
_MOST_INSTANCES = 500


def shown(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Nodes with what is allocated and kept on them. Two queries more, however many."""
    counted = (
        Instance.objects.filter(node_id__in=[row["id"] for row in rows], status__in=ON_NODE)
        .order_by()
        .values("node_id")
        .annotate(instances=Count("id"), memory=Sum("memory_mb"), weight=Sum("cpu"))
    )
    counts: dict[int, Mapping[str, Any]] = {row["node_id"]: dict(row) for row in counted}
    overcommit = settings.CONFIG.limits.cpu_overcommit
    kept = _volumes([row["name"] for row in rows])
    return [
        {**representation.node(row, counts.get(row["id"], {}), overcommit), "volumes": kept.get(row["name"], [])}
        for row in rows
    ]


def _volumes(names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """What is pinned to each node: it cannot move away."""
    found: dict[str, list[dict[str, Any]]] = {}
    rows = Volume.objects.filter(node_name__in=names, live=True).order_by("id")
    for row in rows.values("node_name", "app_number", "app__name", "name", "path", "size_bytes"):
        found.setdefault(row["node_name"], []).append(
            {"app_id": row["app_number"], "app": row["app__name"], "name": row["name"], "path": row["path"],
             "size_bytes": row["size_bytes"]}
        )  # fmt: skip
    return found


class NodeViewSet(ViewSet):
    scopes = {
        "metrics": "platform:read",
        "list": "platform:read",
        "retrieve": "platform:read",
        "drain": "platform:write",
        "activate": "platform:write",
    }

    @extend_schema(operation_id="nodes_list", responses={200: dict})
    def list(self, request: Request) -> Response:
        return page(request, Node.objects.values(*_FIELDS), shown)

    @extend_schema(responses={200: dict})
    def retrieve(self, request: Request, node: str) -> Response:
        found = access.node(node)
        body = _one(found)
        running = Instance.objects.filter(node=found, status__in=ON_NODE).order_by("id")
        names = ("id", "app_id", "app__name", "slot", "status", "health", "memory_mb", "cpu", "release__version")
        body["running"] = [
            {"id": row["id"], "app_id": row["app_id"], "app": row["app__name"], "slot": row["slot"],
             "status": row["status"], "health": row["health"], "memory_mb": row["memory_mb"], "cpu": row["cpu"],
             "version": row["release__version"]}
            for row in running.values(*names)[:_MOST_INSTANCES]
        ]  # fmt: skip
        body["host"] = _host_figures(found.name)
        return Response(body, headers={"ETag": etag(found.revision)})

    @extend_schema(operation_id="node_metrics", parameters=SERIES_PARAMETERS, responses={200: dict})
    def metrics(self, request: Request, node: str) -> Response:
        """The host's newest figures; with `window` a series of them."""
        name = access.node(node).name
        span = spans.read(request.query_params.get("window"), request.query_params.get("step"))
        body: dict[str, Any] = {"node": name, "host": _host_figures(name)}
        if span is not None:
            body["series"] = series.of_host(name, span)
        return Response(body)

    @extend_schema(operation_id="node_drain", request=None, responses={202: dict})
    def drain(self, request: Request, node: str) -> Response:
        return self._change(request, node, services.drain_node)

    @extend_schema(operation_id="node_activate", request=None, responses={202: dict})
    def activate(self, request: Request, node: str) -> Response:
        return self._change(request, node, services.activate_node)

    def _change(self, request: Request, ref: str, act: Callable[[Transaction, Node], Node]) -> Response:
        no_body(request)
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, "platform:write")
            found = access.node(ref)
            check_revision(found.revision, expected)
            found = act(tx, found)
            plan = _moves(tx, found) if tx.rehearsal else None
            return Reply(_one(found), 202, found.revision, f"/nodes/{found.pk}", plan)

        return perform(request, verb)


def _one(node: Node) -> dict[str, Any]:
    return shown([Node.objects.values(*_FIELDS).get(pk=node.pk)])[0]


def _moves(tx: Transaction, node: Node) -> dict[str, Any]:
    """What draining would move, app by app, each on its own."""
    views = observe.node_views()
    actions, pending = [], []
    for seen in observe.observe(sorted(observe.apps_on_nodes([node.pk])), views):
        played = play(seen, tx.at)
        actions += [{"app_id": seen.app_id, **action} for action in played["actions"]]
        pending += [{"app_id": seen.app_id, **row} for row in played["pending"]]
    return {"actions": actions, "settles": not pending, "pending": pending}


def _host_figures(name: str) -> dict[str, Any] | None:
    oldest = clock.to_us(clock.now()) - _FRESH_US
    row = HostSample.objects.filter(node=name, step_s=5, at_us__gt=oldest).order_by("-at_us").first()
    if row is None:
        return None
    return {
        "at": rfc3339(clock.from_us(row.at_us)),
        "cpu_percent": row.cpu_percent,
        "memory_used_bytes": row.memory_used_bytes,
        "memory_total_bytes": row.memory_total_bytes,
        "disk_free_bytes": row.disk_free_bytes,
        "load_1m": row.load_1m,
    }

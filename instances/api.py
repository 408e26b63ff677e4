"""`/app/<app>/instances…` and the merged log. Views validate, call one verb, answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.access import recheck
from apps.access import app_id
from consensus.gate import Transaction
from instances import access, instance_list, log_queries, representation, services
from instances.models import Instance, LatestSample
from instances.telemetry import series, spans
from instances.telemetry.figures import FRESH_US
from instances.telemetry.spans import SERIES_PARAMETERS
from instances.volumes import services as volumes
from omni.kernel import clock
from omni.rest.lean import LeanViewSet
from omni.rest.paging import answer, decode_cursor, encode_cursor, limit_of, refused
from omni.rest.permissions import actor_of
from omni.rest.rendering import dumps
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform

_FIGURES = ("instance_id", "at_us", "cpu_percent", "memory_bytes", "memory_limit_bytes", "network_rx_bytes",
            "network_tx_bytes")  # fmt: skip
LOG_PARAMETERS = [
    OpenApiParameter("stream", str, enum=["stdout", "stderr"]),
    OpenApiParameter("q", str, description="only lines that contain this, in whatever case"),
    OpenApiParameter("since", str, description="RFC 3339, or seconds ago such as 600s"),
    OpenApiParameter("until", str, description="RFC 3339, or seconds ago"),
    OpenApiParameter("tail", int, description="the last n lines"),
    OpenApiParameter("limit", int),
    OpenApiParameter("cursor", str, description="the `cursor` of a line: go on after it"),
]


def latest_figures(ids: list[int]) -> dict[int, Mapping[str, Any]]:
    """The newest figures of these instances, where they are fresh. One query."""
    oldest = clock.to_us(clock.now()) - FRESH_US
    rows = LatestSample.objects.filter(instance_id__in=ids, at_us__gt=oldest).values(*_FIGURES)
    return {row["instance_id"]: dict(row) for row in rows}


class InstanceViewSet(LeanViewSet):
    lean = frozenset({"list", "metrics", "logs", "app_logs"})
    scopes = {
        "list": "instances:read",
        "metrics": "instances:read",
        "logs": "logs:read",
        "details": "instances:read",
        "restart": "instances:write",
        "stop": "instances:write",
        "app_logs": "logs:read",
    }

    @extend_schema(
        operation_id="instances_list",
        parameters=[OpenApiParameter("status", str, description="comma-separated; `all` for the long gone too"),
                    OpenApiParameter("node", str), OpenApiParameter("version", str),
                    OpenApiParameter("process_type", str), OpenApiParameter("limit", int),
                    OpenApiParameter("cursor", str)],
        responses={200: dict},
    )  # fmt: skip
    def list(self, request: Request, app: str) -> Response:
        """Without `status`: those that run or are about to, and those that ended and still wait for a successor."""
        found = app_id(actor_of(request), app)
        limit = limit_of(request)
        direction, position = cursor_of(request)
        after = position if direction == ">" else None
        rows = instance_list.read(
            found, instance_list.chosen(request.query_params), limit,
            before=position if direction == "<" else None, after=after,
        )  # fmt: skip
        more, rows = len(rows) > limit, rows[:limit]
        if after is not None:
            rows.reverse()
        older, newer = (more, position is not None) if after is None else (True, more)
        return answer(
            request,
            instance_list.show(found, rows),
            next_cursor=encode_cursor("<", str(rows[-1][0])) if older and rows else None,
            previous_cursor=encode_cursor(">", str(rows[0][0])) if newer and rows else None,
        )

    @extend_schema(operation_id="instance_metrics", parameters=SERIES_PARAMETERS, responses={200: dict})
    def metrics(self, request: Request, app: str, instance_id: int) -> Response:
        row = access.instance(actor_of(request), app, instance_id)
        span = spans.read(request.query_params.get("window"), request.query_params.get("step"))
        body = representation.metrics(row, latest_figures([row.pk]).get(row.pk), clock.now())
        if span is not None:
            body["series"] = series.of_instance(row.pk, span)
        return _tagged(request, body)

    @extend_schema(operation_id="instance_logs", parameters=LOG_PARAMETERS, responses={200: dict})
    def logs(self, request: Request, app: str, instance_id: int) -> Response:
        row = access.instance(actor_of(request), app, instance_id)
        return log_queries.page(request, row.app_id, row.pk)

    @extend_schema(operation_id="app_logs", parameters=LOG_PARAMETERS, responses={200: dict})
    def app_logs(self, request: Request, app: str) -> Response:
        return log_queries.page(request, app_id(actor_of(request), app), None)

    @extend_schema(operation_id="instance_details", responses={200: dict})
    def details(self, request: Request, app: str, instance_id: int) -> Response:
        row = access.instance(actor_of(request), app, instance_id)
        found = volumes.mounts([row.app_id], row.node.name) if row.app.volume_node and row.node else {}
        shown = representation.details(row, found.get(row.app_id, ()))
        return Response(shown, headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="instance_restart", request=None, responses={202: dict})
    def restart(self, request: Request, app: str, instance_id: int) -> Response:
        return self._change(request, app, instance_id, services.restart_instance)

    @extend_schema(operation_id="instance_stop", request=None, responses={202: dict})
    def stop(self, request: Request, app: str, instance_id: int) -> Response:
        return self._change(request, app, instance_id, services.stop_instance)

    def _change(
        self, request: Request, app: str, instance_id: int, act: Callable[[Transaction, Instance], Instance]
    ) -> Response:
        no_body(request)
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            row = access.instance(tx.actor, app, instance_id)
            recheck(tx.actor, "instances:write", row.app.org_id)
            check_revision(row.revision, expected)
            shown = representation.details(act(tx, row))
            plan = services.plan_now(tx, row.app) if tx.rehearsal else None
            return Reply(shown, 202, row.revision, shown["links"]["self"], plan)

        return perform(request, verb)


def cursor_of(request: Request) -> tuple[str, int | None]:
    """(direction, id) of the list's cursor. Raises InvalidInput."""
    text = request.query_params.get("cursor")
    if not text:
        return "<", None
    direction, key = decode_cursor(text)
    if not (key.isascii() and key.isdigit() and len(key) < 19):
        raise refused("cursor", "Take it from `next` or `previous` of an answer.")
    return direction, int(key)


def _tagged(request: Request, body: dict[str, Any]) -> Response:
    """With a tag of what it shows, but for the moment at which it was asked."""
    shown = dumps({name: value for name, value in body.items() if name not in ("at", "uptime_s")})
    tag = f'"{hashlib.blake2b(shown, digest_size=8).hexdigest()}"'
    if request.headers.get("If-None-Match") == tag:
        return Response(status=304, headers={"ETag": tag})
    return Response(body, headers={"ETag": tag})

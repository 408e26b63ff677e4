"""`/metrics` as Prometheus reads it, and `/cluster/metrics`: the control plane's own series.

Owns the two views. What is measured is `measured.py`'s business, how it becomes text `exposition.py`'s.
"""

from __future__ import annotations

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from prometheus_client import CONTENT_TYPE_LATEST
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from instances.telemetry import platform_series, spans
from instances.telemetry.spans import SERIES_PARAMETERS
from omni.api import exposition


class MetricsViewSet(ViewSet):
    scopes = {"prometheus": "metrics:read", "series": "platform:read"}

    @extend_schema(
        operation_id="metrics_prometheus",
        description="This member's figures as Prometheus text: ask every member. Platform-wide ones come from the "
        "leader alone, those of instances from the member whose node runs them.",
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )
    def prometheus(self, request: Request) -> HttpResponse:
        return HttpResponse(exposition.text(), content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})

    @extend_schema(
        operation_id="cluster_metrics",
        description="The control plane's own series over all members: request rate and latency by route, commits, "
        "loops, builds, ingest. `at` are the steps' beginnings; each series has one figure for each of them.",
        parameters=[
            *SERIES_PARAMETERS,
            OpenApiParameter("name", str, description="only these series; comma between"),
            OpenApiParameter("node", str, description="only what this member counted"),
        ],
        responses={200: dict},
    )
    def series(self, request: Request) -> Response:
        query = request.query_params
        span = spans.read(query.get("window") or "15m", query.get("step") or None)
        assert span is not None  # noqa: S101 - a window is given
        names = frozenset(filter(None, query.get("name", "").split(","))) or None
        return Response(platform_series.read(span, names=names, node=query.get("node") or None))

"""`/services` when the database is away: the states as last replicated, for whoever operates the platform.

Owns that fallback of two reads; everything else is `services.api`'s.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from omni.api import parts
from omni.api.cluster import freshness
from omni.api.degraded import DegradedAuthentication
from omni.kernel.errors import NotFound
from omni.rest import index
from services import api, standings


class ServiceViewSet(api.ServiceViewSet):
    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Set here because the OpenAPI document is to show the one scheme that all views have."""
        asked = super().initialize_request(request, *args, **kwargs)
        if request.method in ("GET", "HEAD"):
            asked.authenticators = [DegradedAuthentication()]
        return asked

    @extend_schema(operation_id="services_list", responses={200: dict})
    def list(self, request: Request) -> Response:
        seen = parts.database.ask()
        if seen.up:
            return super().list(request)
        items = [_shown(name, record) for name, record in sorted(last_known().items())]
        if state := request.query_params.get("state"):
            items = [item for item in items if item["state"] == state]
        if text := request.query_params.get("q"):
            items = [item for item in items if text in item["name"]]
        body = {"items": items, "next": None, "previous": None}
        return Response(body, headers=freshness(seen, index.seen(0)))

    @extend_schema(operation_id="services_retrieve", responses={200: dict})
    def retrieve(self, request: Request, service: str) -> Response:
        seen = parts.database.ask()
        if seen.up:
            return super().retrieve(request, service)
        record = last_known().get(service)
        if record is None:
            raise NotFound("The database is away, and no service of that name is replicated.", next="GET /services")
        return Response(_shown(service, record), headers=freshness(seen, index.seen(0)))


def last_known() -> dict[str, Any]:
    """Name → state, since, detail: from the replicated state, or with a single member from its leader's file."""
    if len(settings.CONFIG.members) < 2:
        return standings.last_written()
    replicated = parts.raft.ask().get("state", {}).get("services", {})
    return {name.removeprefix(standings.PREFIX): record for name, record in replicated.items()
            if name.startswith(standings.PREFIX)}  # fmt: skip


def _shown(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """Only what is replicated; what it lacks is null."""
    return {"id": None, "name": name, "state": record["state"], "state_since": record["since"],
            "detail": record["detail"]}  # fmt: skip

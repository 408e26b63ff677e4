"""`/health`, `/health/live`, `/health/ready`: what this member can say about itself. Open, quick, and without the
database if need be.

Owns honest answers: ready means that a write sent here now would be accepted; a part that nobody can ask is unknown.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from omni.api import parts
from omni.api.cluster import freshness
from omni.api.schemas_cluster import Health, Readiness
from omni.kernel.config import Config
from omni.kernel.probes import Probe, ask_all
from omni.rest import index
from omni.rest.permissions import OPEN
from omni.version import VERSION

_NEEDED = frozenset({"raft", "database"})


class HealthViewSet(ViewSet):
    scopes = {"live": OPEN, "ready": OPEN, "whole": OPEN}
    authentication_classes: list[Any] = []

    @extend_schema(responses={200: dict})
    def live(self, request: Request) -> Response:
        return Response({"status": "live"})

    @extend_schema(operation_id="health_ready", responses={200: Readiness, 503: Readiness})
    def ready(self, request: Request) -> Response:
        seen = parts.database.ask()
        role, leader = parts.leadership()
        why = _why_not_ready(seen, role, leader)
        body = {"status": "not_ready" if why else "ready", "database": "up" if seen.up else "down", "leader": leader}
        if why:
            body["why"] = why
        return Response(body, status=503 if why else 200, headers=freshness(seen, index.seen(0)))

    @extend_schema(operation_id="health", responses={200: Health, 503: Health})
    def whole(self, request: Request) -> Response:
        asked: dict[str, Probe[Any]] = {
            "database": parts.database,
            "broker": parts.broker,
            "ingress": parts.ingress,
            "raft": parts.raft,
        }
        seen = ask_all(asked)
        shown: dict[str, parts.Part] = {
            "raft": _raft(settings.CONFIG, seen["raft"]),
            "database": seen["database"].part,
            "broker": seen["broker"],
            "agent": parts.agent_part(seen["database"], seen["raft"].get("state", {})),
            "ingress": seen["ingress"],
        }
        down = {name for name, part in shown.items() if part["status"] == "down"}
        status = "down" if _NEEDED & down else ("degraded" if down else "healthy")
        body = {"status": status, "node": settings.CONFIG.me.id, "version": VERSION, "parts": shown}
        headers = freshness(seen["database"], index.seen(0))
        return Response(body, status=503 if _NEEDED & down else 200, headers=headers)


def _why_not_ready(seen: parts.Database, role: str, leader: str | None) -> str:
    """Why a write sent here would not be accepted; empty when it would."""
    if not seen.up:
        return f"the database: {seen.detail}"
    if leader is None:
        return "no leader is known"
    if role != "leader" and not parts.answers(leader):
        return f"the leader {leader} cannot be reached"
    return ""


def _raft(config: Config, status: parts.Part) -> parts.Part:
    """This member's part in the agreement on who leads; with a single member there is none to reach."""
    role, leader = parts.leadership(status)
    alone = len(config.members) < 2
    part: parts.Part = {"status": "up" if leader else "down", "role": role, "leader": leader}
    part["mode"] = "static" if alone else "raft"
    if not alone:
        part["term"] = status.get("term")
        part["quorum"] = status.get("quorum")
    if "unavailable" in status:
        return {**part, "status": "down", "detail": status["unavailable"]}
    return part if leader else {**part, "detail": "no leader is known"}

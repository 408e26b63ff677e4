"""`/health`, `/health/ready`, `/cluster/status`: what this member can say about itself and the cluster.

Owns honest answers: ready means that a write sent here now would be accepted; a part that nobody can ask is unknown.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from django.conf import settings
from django.db import Error, connections
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from consensus import fence, gate
from consensus.lease import ConsensusUnavailable, Held
from instances.models import Node
from omni.kernel import keys
from omni.kernel.errors import Conflict
from omni.rest.permissions import OPEN

_VERSION = "0.1.0"
_CACHE_S = 1.0
_BROKER_TIMEOUT_S = 0.5
_cache: tuple[float, dict[str, Any]] | None = None


def _leadership() -> tuple[str, str | None]:
    """(role, leader's host:port)."""
    try:
        answer = gate.lease().current()
    except ConsensusUnavailable:
        return "unknown", None
    if isinstance(answer, Held):
        return "leader", settings.CONFIG.me.netloc
    return "follower", answer.leader


def _database() -> dict[str, Any]:
    started = time.monotonic()
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
    except Error as error:
        connections.close_all()
        return {"status": "down", "detail": type(error).__name__}
    return {"status": "up", "latency_ms": round((time.monotonic() - started) * 1000, 2)}


def _broker() -> dict[str, Any]:
    import redis

    from omni.broker import client

    try:
        started = time.monotonic()
        client(timeout_s=_BROKER_TIMEOUT_S).ping()
    except (redis.RedisError, OSError) as error:
        return {"status": "down", "detail": type(error).__name__}
    return {"status": "up", "latency_ms": round((time.monotonic() - started) * 1000, 2)}


def _agent() -> dict[str, Any]:
    node = Node.objects.filter(name=settings.CONFIG.me.id).values("status").first()
    if node is None:
        return {"status": "unknown", "detail": "the agent of this member has not reported yet"}
    return {"status": "up" if node["status"] in ("ready", "draining") else "down", "node": node["status"]}


def _ingress() -> dict[str, Any]:
    address, port = settings.CONFIG.ingress_address, settings.CONFIG.ingress.port
    try:
        with socket.create_connection((address, port), timeout=0.3):
            return {"status": "up"}
    except OSError:
        return {"status": "down", "detail": f"nothing listens on port {port}"}


def _parts() -> dict[str, Any]:
    """Every part, at most a second old: a health check that is polled must not become a load."""
    global _cache
    if _cache is not None and time.monotonic() - _cache[0] < _CACHE_S:
        return _cache[1]
    role, leader = _leadership()
    database = _database()
    parts: dict[str, Any] = {
        "raft": {"status": "up" if leader else "down", "role": role, "leader": leader, "mode": "static"},
        "database": database,
        "broker": _broker(),
        "agent": _agent() if database["status"] == "up" else {"status": "unknown"},
        "ingress": _ingress(),
    }
    _cache = (time.monotonic(), parts)
    return parts


def forget() -> None:
    """Ask again next time (tests)."""
    global _cache
    _cache = None


def _member_answers(netloc: str) -> bool:
    host, _, port = netloc.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=0.3):
            return True
    except OSError:
        return False


class HealthViewSet(ViewSet):
    scopes = {"live": OPEN, "ready": OPEN, "whole": OPEN}
    authentication_classes: list[Any] = []

    @extend_schema(responses={200: dict})
    def live(self, request: Request) -> Response:
        return Response({"status": "live"})

    @extend_schema(responses={200: dict, 503: dict})
    def ready(self, request: Request) -> Response:
        parts = _parts()
        ready = parts["database"]["status"] == "up" and parts["raft"]["leader"] is not None
        leader = parts["raft"]["leader"]
        if ready and leader != settings.CONFIG.me.netloc:
            ready = _member_answers(leader)
        why = {"database": parts["database"]["status"], "leader": leader}
        return Response({"status": "ready" if ready else "not_ready", **why}, status=200 if ready else 503)

    @extend_schema(responses={200: dict, 503: dict})
    def whole(self, request: Request) -> Response:
        parts = _parts()
        down = [name for name, part in parts.items() if part["status"] == "down"]
        needed = {"raft", "database"} & set(down)
        status = "down" if needed else ("degraded" if down else "healthy")
        body = {"status": status, "node": settings.CONFIG.me.id, "version": _VERSION, "parts": parts}
        return Response(body, status=503 if needed else 200)


class ClusterViewSet(ViewSet):
    scopes = {"status": "platform:read", "transfer": "platform:write"}

    @extend_schema(operation_id="cluster_status", responses={200: dict})
    def status(self, request: Request) -> Response:
        config = settings.CONFIG
        role, leader = _leadership()
        try:
            epoch, index, cluster_id, _ = fence.read()
        except Error:
            epoch, index, cluster_id = None, None, keys.cluster_id(config)
        members = [
            {
                "id": member.id,
                "address": member.netloc,
                "role": "leader" if member.netloc == leader else "follower",
                "reachable": member == config.me or _member_answers(member.netloc),
                "match_lag": None,
                "version": _VERSION if member == config.me else None,
                "last_seen_at": None,
            }
            for member in config.members
        ]
        up = sum(1 for member in members if member["reachable"])
        return Response(
            {
                "cluster_id": cluster_id or keys.cluster_id(config),
                "node": config.me.id,
                "role": role,
                "leader": leader,
                "term": None,
                "epoch": epoch,
                "write_index": index,
                "quorum": {"mode": "static", "reachable": up, "size": len(members)},
                "members": members,
            }
        )

    @extend_schema(request=None, responses={202: dict})
    def transfer(self, request: Request) -> Response:
        detail = "Leadership is static in this version: the first entry of `instances` leads."
        raise Conflict(detail, code="static_leadership", next="GET /cluster/status")

"""`/agent/…`: what agents and ingresses ask and report (`agent.protocol`, `agent.routing`). Not part of the public API.

Scope `agent:sync`; a node's token reads and reports for its own node only. Heartbeats touch neither gate nor database.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import orjson
from django.conf import settings
from django.http import FileResponse, HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from agent.plain import from_json, to_json
from agent.protocol import Report, ReportAnswer, Samples
from agent.routing import Drained, RequestCounts
from consensus import gate
from consensus.lease import ConsensusUnavailable, Held
from instances import assignments, draining, heartbeats, reports, routes, snapshot
from instances.exec import services as sessions
from instances.models import Instance, Node
from instances.telemetry import ingest
from instances.volumes import services as volumes
from instances.volumes.snapshots import jobs as volume_jobs
from omni.kernel.errors import Forbidden, Malformed, NotLeader
from omni.rest import index
from omni.rest.permissions import actor_of
from omni.rest.rendering import dumps
from releases.storage import store

# node → the agent process whose facts are stored and whether it runs an ingress, as far as this process knows
_known: dict[str, tuple[int, bool]] = {}
_lock = threading.Lock()


class AgentViewSet(ViewSet):
    scopes = {
        "assignments": "agent:sync",
        "report": "agent:sync",
        "logs": "agent:sync",
        "samples": "agent:sync",
        "requests": "agent:sync",
        "drained": "agent:sync",
        "routes": "agent:sync",
        "package": "agent:sync",
    }

    @extend_schema(exclude=True)
    def assignments(self, request: Request) -> HttpResponse:
        node = _node_of(request)
        with snapshot.taken() as position:
            listed, held = assignments.of_node(node), volumes.of_node(node)
            talks, jobs = sessions.of_node(node), volume_jobs.of_node(node) if held else []
        shown = b'"instances":' + orjson.dumps(listed) + b',"volumes":' + orjson.dumps(held)
        shown += b',"sessions":' + orjson.dumps(talks) + b',"volume_jobs":' + orjson.dumps(jobs)
        digest = hashlib.blake2b(shown, digest_size=16).hexdigest()
        return _positioned(request, position, {"node": node}, shown, f'"{digest}"')

    @extend_schema(exclude=True)
    def routes(self, request: Request) -> HttpResponse:
        with snapshot.taken() as position:
            shown, tag = routes.shown()
        return _positioned(request, position, {}, shown, tag)

    @extend_schema(exclude=True)
    def report(self, request: Request) -> Response:
        node = _node_of(request)
        report = _message(Report, request)
        if report.node != node:
            raise Forbidden(f"This token is {node}'s.", code="foreign_node")
        lease = _held()
        heartbeats.own().beat(node)
        if _is_heartbeat(report):
            return _answer(ReportAnswer(index.recent() or 0, lease.epoch), None)
        address = _member_address(node)
        volume_jobs.look_up(report.volume_jobs)
        received, at = gate.run(
            lambda tx: reports.receive(tx, report, address), actor=actor_of(request), cause=f"report of {node}"
        )
        index.seen(at)
        with _lock:
            _known.pop(node, None)  # read again with the next heartbeat
        answer = ReportAnswer(at, lease.epoch, received.known, received.unknown, received.want_facts)
        return _answer(answer, at)

    @extend_schema(exclude=True)
    def logs(self, request: Request) -> Response:
        body = request.data
        if not isinstance(body, dict) or not isinstance(body.get("batches"), list):
            raise Malformed("An object with batches is wanted.")
        return Response(dumps(to_json(ingest.store_logs(_node_of(request), body["batches"]))))

    @extend_schema(exclude=True)
    def samples(self, request: Request) -> Response:
        message = _message(Samples, request)
        ingest.store_samples(_node_of(request), message.samples, message.host)
        return Response({"acked": len(message.samples)})

    @extend_schema(exclude=True)
    def requests(self, request: Request) -> Response:
        node = _node_of(request)
        message = _message(RequestCounts, request)
        ingest.store_requests(node, message)
        return Response({"acked": len(message.rows)})

    @extend_schema(exclude=True)
    def drained(self, request: Request) -> Response:
        """What this node's ingress has no open requests at any more."""
        node = _node_of(request)
        message = _message(Drained, request)
        told, at = gate.run(
            lambda tx: draining.drained(tx, node, message.instances),
            actor=actor_of(request), cause=f"ingress of {node}",
        )  # fmt: skip
        index.seen(at)
        return Response({"acked": told}, headers={"Omni-Index": str(at)})

    @extend_schema(exclude=True)
    def package(self, request: Request, sha256: str) -> Any:
        """Only what the node is to run, or to restore: a node gets no other org's code by guessing digests."""
        node = _node_of(request)
        wanted = Instance.objects.filter(node__name=node, on_node=True, release__package_id=sha256)
        if not wanted.exists() and not volume_jobs.is_needed(node, sha256):
            raise Forbidden("Nothing on this node needs that package.", code="foreign_package")
        return FileResponse(store().open(sha256), content_type="application/x-tar")


def _node_of(request: Request) -> str:
    actor = actor_of(request)
    if actor.kind != "agent":
        raise Forbidden("Only a node's own token may do that.", code="not_a_node")
    return actor.name


def _member_address(node: str) -> str:
    """The address of the member that this node belongs to. Raises Forbidden for a stranger."""
    for member in settings.CONFIG.members:
        if member.id == node:
            return str(member.address)
    raise Forbidden(f"{node} is no node of this cluster.", code="unknown_node")


def _held() -> Held:
    """Heartbeats count at the leader only."""
    try:
        answer = gate.lease().current()
    except ConsensusUnavailable as unavailable:
        raise NotLeader(None) from unavailable
    if not isinstance(answer, Held):
        raise NotLeader(answer.leader)
    return answer


def _is_heartbeat(report: Report) -> bool:
    """Whether a report says nothing that the database does not know; the first of an agent process does."""
    if report.instances or report.gone or report.volumes or report.volume_jobs or report.sessions:
        return False
    if report.facts is not None:
        return False
    known = _known.get(report.node)
    if known is None:
        known = Node.objects.filter(name=report.node).values_list("incarnation", "ingress").first()
        if known is None:
            return False
        with _lock:
            _known[report.node] = known
    return known[0] == report.incarnation and report.ingress in (None, known[1])


def _message(kind: type[Any], request: Request) -> Any:
    try:
        return from_json(kind, request.data)
    except ValueError as error:
        raise Malformed(str(error)) from error


def _positioned(
    request: Request, position: tuple[int, int, str], head: dict[str, Any], tail: bytes, tag: str
) -> HttpResponse:
    """A list exactly as of (epoch, index)."""
    epoch, at, cluster_id = position
    headers = {"ETag": tag, "Omni-Index": str(at), "Cache-Control": "no-store"}
    if request.headers.get("If-None-Match") == tag:
        return HttpResponse(status=304, headers=headers)
    body = orjson.dumps({"cluster_id": cluster_id, "epoch": epoch, "index": at, **head})[:-1] + b"," + tail + b"}"
    return HttpResponse(body, content_type="application/json", headers=headers)


def _answer(answer: ReportAnswer, at: int | None) -> Response:
    headers = {"Omni-Index": str(at)} if at is not None else {}
    return Response(dumps(to_json(answer)), headers=headers)

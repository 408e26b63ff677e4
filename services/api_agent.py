"""`/agent/checks`, `/agent/verdicts`, `/agent/spans`: what vantage points ask and report. Not part of the public API.

Scope `agent:sync`. Definitions are read on any member; verdicts count at the leader only and touch no database.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.models import Count, Sum
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from agent.checks.messages import Check, Checks, Spans, Verdicts, VerdictsAnswer
from agent.plain import from_json, to_json
from consensus import gate
from instances.models import Node
from instances.states import NodeStatus
from instances.telemetry import statements as sql
from omni.kernel.config_checks import networks
from omni.kernel.errors import Forbidden, Malformed, NotLeader
from omni.rest.permissions import actor_of
from omni.rest.rendering import dumps
from services import board, vantage
from services.models import Service

ON_NODES = ("http", "tcp", "tls", "exec", "disk")  # the others are the leader's own business
_COLUMNS = ("service_id", "from_us", "node", "at_us", "outcome", "checks", "latency_ms", "latency_ms_max", "detail")
_FIELDS = ("id", "definition", "interval_s", "timeout_s", "healthy_threshold", "unhealthy_threshold", "source",
           "vantage_points", "check_spec", "maintenance")  # fmt: skip


class VantageViewSet(ViewSet):
    scopes = {"checks": "agent:sync", "verdicts": "agent:sync", "spans": "agent:sync"}

    @extend_schema(exclude=True)
    def checks(self, request: Request) -> Response:
        node = _node_of(request)
        outgoing = settings.CONFIG.outgoing
        allow, deny = networks(outgoing.allow), networks(outgoing.deny)
        ready = ready_nodes()
        tag = _tag(ready, allow, deny)
        if request.query_params.get("tag") == tag:
            return Response(dumps(to_json(Checks(tag, allow, deny, None))))
        rows = Service.objects.filter(check_spec__type__in=ON_NODES).order_by("id").values(*_FIELDS)
        mine = [check_of(row) for row in rows if node in looked_at_by(row, ready)]
        return Response(dumps(to_json(Checks(tag, allow, deny, mine))))

    @extend_schema(exclude=True)
    def verdicts(self, request: Request) -> Response:
        node, report = _node_of(request), _message(Verdicts, request)
        if report.node != node:
            raise Forbidden(f"This token is {node}'s.", code="foreign_node")
        if not gate.leads():
            raise NotLeader(None)
        return Response(dumps(to_json(VerdictsAnswer(board.receive(report, board.directory())))))

    @extend_schema(exclude=True)
    def spans(self, request: Request) -> Response:
        node, message = _node_of(request), _message(Spans, request)
        rows = [(s.service_id, s.from_us, node, s.at_us, s.outcome, s.checks, s.latency_ms, s.latency_ms_max,
                 s.detail[:300]) for s in message.spans]  # fmt: skip
        sql.insert("services_checkspan", _COLUMNS, sorted(rows), again="replace")
        return Response({"acked": len(rows)})


def ready_nodes() -> list[str]:
    """The nodes that can look at something."""
    states = (NodeStatus.READY, NodeStatus.DRAINING)
    return list(Node.objects.filter(status__in=states).order_by("name").values_list("name", flat=True))


def looked_at_by(row: Mapping[str, Any], ready: Sequence[str]) -> tuple[str, ...]:
    """The nodes that check a service; a check that names a node is that node's."""
    named = row["check_spec"].get("node")
    if named:
        return (named,)
    return vantage.chosen(row["id"], ready, row["vantage_points"])


def check_of(row: Mapping[str, Any]) -> Check:
    spec = {name: value for name, value in row["check_spec"].items() if name != "node"}
    data = {**spec, **{name: row[name] for name in _FIELDS[:6]}, "trusted": row["source"] == "platform"}
    check: Check = from_json(Check, data)
    return check


def _tag(ready: Sequence[str], allow: Sequence[str], deny: Sequence[str]) -> str:
    """Changes whenever a list of checks may have: a change of one raises its definition, a new one has a new id."""
    counted = Service.objects.aggregate(count=Count("id"), ids=Sum("id"), definitions=Sum("definition"))
    text = repr((sorted(counted.items()), list(ready), list(allow), list(deny)))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _node_of(request: Request) -> str:
    actor = actor_of(request)
    if actor.kind != "agent":
        raise Forbidden("Only a node's own token may do that.", code="not_a_node")
    return actor.name


def _message(kind: type[Any], request: Request) -> Any:
    try:
        return from_json(kind, request.data)
    except ValueError as error:
        raise Malformed(str(error)) from error

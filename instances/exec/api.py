"""`/app/<app>/instances/<id>/exec`: ask for a session, list them; and what members and agents ask about one.

The talk is a WebSocket at the `url` that a POST answers, on any member (`omni.front.talks`).
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from apps.fields import refuse
from consensus import gate
from consensus.gate import Transaction
from instances import access
from instances.exec import services
from instances.exec.models import ExecSession
from omni.kernel.clock import rfc3339
from omni.kernel.errors import Forbidden, Malformed, NotFound
from omni.rest import index
from omni.rest.fields import StrictSerializer
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, perform

_ARGUMENTS, _LONGEST = 256, 32_768


class CommandField(serializers.Field):  # type: ignore[type-arg]
    """A line for `/bin/sh -c`, or a list of words that no shell reads."""

    def to_internal_value(self, data: Any) -> list[str]:
        words = ["/bin/sh", "-c", data] if isinstance(data, str) else data
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise refuse("invalid", "A line, or a list of words, is wanted.")
        if not words[0] or any("\0" in word for word in words):
            raise refuse("invalid", "Words without NUL are wanted, the first of them not empty.")
        if len(words) > _ARGUMENTS or sum(len(word) for word in words) > _LONGEST:
            raise refuse("too_long", f"At most {_ARGUMENTS} words of {_LONGEST} characters together.")
        return words

    def to_representation(self, value: Any) -> Any:
        return value


class ExecFields(StrictSerializer):
    command = CommandField()
    tty = serializers.BooleanField(default=False)
    columns = serializers.IntegerField(min_value=1, max_value=9999, default=80)
    rows = serializers.IntegerField(min_value=1, max_value=9999, default=24)
    timeout_s = serializers.FloatField(min_value=1, max_value=7 * 86400, required=False)


class ExecViewSet(ViewSet):
    scopes = {"list": "instances:read", "create": "exec", "attach": "agent:sync", "expected": "agent:sync"}

    @extend_schema(operation_id="exec_list", responses={200: dict})
    def list(self, request: Request, app: str, instance_id: int) -> Response:
        """The instance's sessions, open and ended."""
        row = access.instance(actor_of(request), app, instance_id)
        rows = ExecSession.objects.filter(instance_number=row.pk, app_id=row.app_id)
        return page(request, rows, lambda items: [shown(item) for item in items])

    @extend_schema(operation_id="exec_create", request=ExecFields, responses={201: dict})
    def create(self, request: Request, app: str, instance_id: int) -> Response:
        """A session for one command. Open its `url` as a WebSocket within 30 s; that starts the command."""
        fields = ExecFields.read(request.data)
        wanted = services.Wanted(
            fields["command"], fields["tty"], fields["columns"], fields["rows"], fields.get("timeout_s")
        )

        def verb(tx: Transaction) -> Reply:
            instance = access.instance(tx.actor, app, instance_id)
            recheck(tx.actor, "exec", instance.app.org_id)
            row, ticket = services.create(tx, instance.app, instance, wanted)
            url = f"/app/{row.app_id}/instances/{row.instance_number}/exec?session={row.pk}&ticket={ticket}"
            plan = {"actions": [{"action": "exec", "node": row.node_name}]} if tx.rehearsal else None
            return Reply({**shown(row), "url": url}, 201, row.revision, plan=plan)

        return perform(request, verb)

    @extend_schema(exclude=True)
    def attach(self, request: Request, session_id: int) -> Response:
        """A member says: somebody is here with this ticket."""
        ticket = request.data.get("ticket") if isinstance(request.data, dict) else None
        if not isinstance(ticket, str):
            raise Malformed("A ticket is wanted.")
        member = _member(request)
        row, at = gate.run(
            lambda tx: services.attach(tx, session_id, ticket, member),
            actor=actor_of(request), cause=f"session {session_id}",
        )  # fmt: skip
        index.seen(at)
        return Response({"id": row.pk, "app_id": row.app_id, "instance_id": row.instance_number})

    @extend_schema(exclude=True)
    def expected(self, request: Request, session_id: int) -> Response:
        """Whether this agent is to come to this member for that session."""
        if not services.expected(session_id, _member(request), settings.CONFIG.me.id):
            raise NotFound("There is no such session here.")
        return Response(status=204)


def shown(row: ExecSession) -> dict[str, Any]:
    """`exit_code` as a shell says it: 128 + n for signal n; null while it runs, and when nobody knows."""
    base = f"/app/{row.app_id}/instances/{row.instance_number}"
    return {
        "id": row.pk, "app_id": row.app_id, "instance_id": row.instance_number, "node": row.node_name,
        "status": row.status, "command": row.argv, "tty": row.tty, "idle_s": row.idle_s, "timeout_s": row.max_s,
        "exit_code": row.exit_code, "reason": row.reason, "detail": row.detail, "created_by": row.created_by,
        "created_at": rfc3339(row.created_at), "started_at": rfc3339(row.started_at),
        "ended_at": rfc3339(row.ended_at), "revision": row.revision,
        "links": {"instance": f"{base}/details", "self": f"{base}/exec", "events": f"/events?app={row.app_id}"},
    }  # fmt: skip


def _member(request: Request) -> str:
    actor = actor_of(request)
    if actor.kind != "agent":
        raise Forbidden("Only a node's own token may do that.", code="not_a_node")
    return actor.name

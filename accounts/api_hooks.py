"""`/webhooks`: addresses that are told of events, signed. Validates, calls one verb, answers."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts import access, event_hooks
from accounts.models import EventHook, EventHookProgress
from consensus.gate import Transaction
from omni.kernel import clock
from omni.kernel.clock import rfc3339
from omni.kernel.models import ORDINALS
from omni.rest.fields import StrictSerializer
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform

_KIND = r"^[a-z_]+\.([a-z_]+|\*)$"


class HookFields(StrictSerializer):
    url = serializers.RegexField(r"^https?://[^\s/@]+(/\S*)?$", max_length=500)
    kinds = serializers.ListField(
        child=serializers.RegexField(_KIND, max_length=64), required=False, default=list, max_length=50,
        help_text="such as app.created or deployment.*; none: all",
    )  # fmt: skip
    active = serializers.BooleanField(required=False, default=True)


class NewHook(HookFields):
    org = serializers.CharField(max_length=63, required=False, allow_null=True, default="",
                                help_text="null: the whole platform's events (operators)")  # fmt: skip
    secret = serializers.CharField(min_length=24, max_length=200, required=False, default="",
                                   help_text="default: one is made")  # fmt: skip


def show(rows: list[EventHook]) -> list[dict[str, Any]]:
    """With how far each was told. One query more, however many."""
    told = {row.hook_id: row for row in EventHookProgress.objects.filter(hook_id__in=[row.pk for row in rows])}
    return [_shown(row, told.get(row.pk)) for row in rows]


def _shown(row: EventHook, told: EventHookProgress | None) -> dict[str, Any]:
    at = told.key if told is not None else row.since_key
    return {
        "id": row.pk,
        "org_id": row.org_id,
        "url": row.url,
        "kinds": row.kinds,
        "active": row.active,
        "why_inactive": row.why_inactive or None,
        "delivery": {
            "position": f"{at // ORDINALS}.{at % ORDINALS}",
            "delivered": told.delivered if told else 0,
            "failures": told.failures if told else 0,
            "status": told.last_status if told else None,
            "detail": told.last_detail or None if told else None,
            "at": rfc3339(clock.from_us(told.at_us)) if told else None,
        },
        "created_at": rfc3339(row.created_at),
        "created_by": row.created_by,
        "updated_at": rfc3339(row.updated_at),
        "revision": row.revision,
        "links": {"self": f"/webhooks/{row.pk}"},
    }


class EventHookViewSet(ViewSet):
    scopes = {
        "list": "orgs:read",
        "create": "orgs:write",
        "retrieve": "orgs:read",
        "partial_update": "orgs:write",
        "destroy": "orgs:write",
    }

    @extend_schema(operation_id="webhooks_list", responses={200: dict})
    def list(self, request: Request) -> Response:
        return page(request, event_hooks.seen_by(actor_of(request)), show)

    @extend_schema(operation_id="webhook_create", request=NewHook, responses={201: dict})
    def create(self, request: Request) -> Response:
        """The secret is in this answer only."""
        values = NewHook.read(request.data)

        def verb(tx: Transaction) -> Reply:
            org = None
            if values["org"] is None:
                access.recheck(tx.actor, "platform:write")
            else:
                org = access.org(tx.actor, values["org"] or None)
                access.recheck(tx.actor, "orgs:write", org.pk)
            row, secret = event_hooks.create(
                tx, org=org, app_id=None, url=values["url"], kinds=values["kinds"], secret=values["secret"]
            )
            return Reply({**show([row])[0], "secret": secret}, 201, row.revision, f"/webhooks/{row.pk}")

        return perform(request, verb)

    @extend_schema(operation_id="webhook_retrieve", responses={200: dict})
    def retrieve(self, request: Request, hook_id: int) -> Response:
        row = event_hooks.find(actor_of(request), hook_id)
        return Response(show([row])[0], headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="webhook_update", request=HookFields, responses={200: dict})
    def partial_update(self, request: Request, hook_id: int) -> Response:
        fields = HookFields(data=request.data, partial=True)
        fields.is_valid(raise_exception=True)
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            row = _writable(tx, hook_id)
            check_revision(row.revision, expected)
            event_hooks.update(tx, row, dict(fields.validated_data))
            return Reply(show([row])[0], 200, row.revision)

        return perform(request, verb)

    @extend_schema(operation_id="webhook_delete", request=None, responses={204: None})
    def destroy(self, request: Request, hook_id: int) -> Response:
        no_body(request)

        def verb(tx: Transaction) -> Reply:
            event_hooks.delete(tx, _writable(tx, hook_id))
            return Reply(None, 204)

        return perform(request, verb)


def _writable(tx: Transaction, hook_id: int) -> EventHook:
    row = event_hooks.find(tx.actor, hook_id)
    if row.org_id is None:
        access.recheck(tx.actor, "platform:write")
    else:
        access.recheck(tx.actor, "orgs:write", row.org_id)
    return row

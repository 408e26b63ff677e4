"""`/orgs/<org>/registries`: credentials for private image registries. Passwords are write-only."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts import access
from consensus.gate import Transaction
from omni.kernel.clock import rfc3339
from omni.kernel.errors import NotFound
from omni.rest.fields import StrictSerializer
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, no_body, perform
from releases import services
from releases.models import RegistryCredential

_REGISTRY = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(:[0-9]{1,5})?$"


class RegistryFields(StrictSerializer):
    registry = serializers.RegexField(_REGISTRY, max_length=260)
    username = serializers.CharField(max_length=200)
    password = serializers.CharField(max_length=4000, write_only=True, trim_whitespace=False)


class RegistryViewSet(ViewSet):
    scopes = {"list": "orgs:read", "create": "orgs:write", "destroy": "orgs:write"}

    @extend_schema(operation_id="orgs_registries_list", responses={200: dict})
    def list(self, request: Request, org: str) -> Response:
        owner = access.org(actor_of(request), org)
        found = RegistryCredential.objects.filter(org=owner)
        return page(request, found, lambda rows: [_shown(row) for row in rows])

    @extend_schema(operation_id="orgs_registries_store", request=RegistryFields, responses={201: dict})
    def create(self, request: Request, org: str) -> Response:
        """Stores user name and password for one registry (`docker.io` for Docker Hub); replaces what was there."""
        owner = access.org(actor_of(request), org)
        fields = RegistryFields(data=request.data)
        fields.is_valid(raise_exception=True)

        def verb(tx: Transaction) -> Reply:
            access.recheck(tx.actor, "orgs:write", owner.pk)
            row = services.store_registry(tx, org=access.org(tx.actor, owner.pk), **fields.validated_data)
            return Reply(_shown(row), 201, row.revision, f"/orgs/{owner.name}/registries/{row.pk}")

        return perform(request, verb)

    @extend_schema(operation_id="orgs_registries_remove", responses={204: None})
    def destroy(self, request: Request, org: str, pk: int) -> Response:
        no_body(request)
        owner = access.org(actor_of(request), org)
        _one(owner.pk, pk)

        def verb(tx: Transaction) -> Reply:
            access.recheck(tx.actor, "orgs:write", owner.pk)
            services.remove_registry(tx, credential=_one(owner.pk, pk))
            return Reply(None, 204)

        return perform(request, verb)


def _one(org_id: int, pk: int) -> RegistryCredential:
    row = RegistryCredential.objects.filter(org_id=org_id, pk=pk).first()
    if row is None:
        raise NotFound("The org has no such registry.")
    return row


def _shown(row: RegistryCredential) -> dict[str, Any]:
    return {
        "id": row.pk,
        "registry": row.registry,
        "username": row.username,
        "password": {"secret": True},
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "revision": row.revision,
    }

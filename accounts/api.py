"""`/orgs` and `/tokens`.

Validates, calls one verb, answers. Rights: `accounts.roles`; look-ups: `accounts.access`.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts import access, authentication, services
from accounts.models import ApiToken, Membership, Org, Role, TokenUse
from consensus.gate import Transaction
from omni.kernel.clock import rfc3339
from omni.kernel.errors import Conflict, NotFound
from omni.rest.fields import StrictSerializer
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform

_NAME = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"


class OrgFields(StrictSerializer):
    name = serializers.RegexField(_NAME, max_length=63)
    description = serializers.CharField(max_length=500, allow_blank=True, required=False, default="")


class QuotaFields(StrictSerializer):
    max_apps = serializers.IntegerField(min_value=0, allow_null=True, required=False)
    max_instances = serializers.IntegerField(min_value=0, allow_null=True, required=False)
    max_memory_mb = serializers.IntegerField(min_value=0, allow_null=True, required=False)
    max_builds_at_once = serializers.IntegerField(min_value=1, allow_null=True, required=False)


class MemberFields(StrictSerializer):
    user = serializers.RegexField(r"^[\w.@+-]{1,150}$")
    role = serializers.ChoiceField(choices=Role.choices)
    password = serializers.CharField(min_length=12, max_length=200, required=False)


class TokenFields(StrictSerializer):
    name = serializers.CharField(max_length=100)
    org = serializers.CharField(max_length=63, required=False)
    role = serializers.ChoiceField(choices=Role.choices, default="developer")
    scopes = serializers.ListField(child=serializers.CharField(max_length=64), required=False, default=list)
    platform = serializers.BooleanField(required=False, default=False)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


def show_org(org: Org) -> dict[str, Any]:
    return {
        "id": org.pk,
        "name": org.name,
        "description": org.description,
        "quota": {name: getattr(org, name) for name in services.QUOTA_FIELDS},
        "created_at": rfc3339(org.created_at),
        "updated_at": rfc3339(org.updated_at),
        "revision": org.revision,
        "links": {"self": f"/orgs/{org.name}", "members": f"/orgs/{org.name}/members"},
    }


def show_token(token: ApiToken, last_used: Any = None) -> dict[str, Any]:
    return {
        "id": token.pk,
        "name": token.name,
        "prefix": token.prefix,
        "org": token.org_id,
        "role": token.role,
        "scopes": token.scopes,
        "platform": token.platform,
        "created_at": rfc3339(token.created_at),
        "created_by": token.created_by,
        "expires_at": rfc3339(token.expires_at),
        "revoked_at": rfc3339(token.revoked_at),
        "last_used_at": rfc3339(last_used),
        "revision": token.revision,
    }


def _show_member(member: Membership) -> dict[str, Any]:
    return {"user": member.user.get_username(), "role": member.role, "since": rfc3339(member.created_at)}


def _input(kind: type[StrictSerializer], request: Request, *, partial: bool = False) -> dict[str, Any]:
    fields = kind(data=request.data, partial=partial)
    fields.is_valid(raise_exception=True)
    return dict(fields.validated_data)


class OrgViewSet(ViewSet):
    scopes = {
        "list": "orgs:read",
        "create": "platform:write",
        "retrieve": "orgs:read",
        "partial_update": "orgs:write",
        "members": "orgs:read",
        "add_member": "orgs:write",
        "remove_member": "orgs:write",
        "quota": "orgs:read",
        "set_quota": "platform:write",
    }

    @extend_schema(operation_id="orgs_list", responses={200: dict})
    def list(self, request: Request) -> Response:
        return page(request, access.orgs(actor_of(request)), lambda rows: [show_org(row) for row in rows])

    @extend_schema(request=OrgFields, responses={201: dict})
    def create(self, request: Request) -> Response:
        values = _input(OrgFields, request)

        def verb(tx: Transaction) -> Reply:
            access.recheck(tx.actor, "platform:write")
            org = services.create_org(tx, **values)
            return Reply(show_org(org), 201, org.revision, f"/orgs/{org.name}")

        return perform(request, verb)

    @extend_schema(responses={200: dict})
    def retrieve(self, request: Request, org: str) -> Response:
        found = access.org(actor_of(request), org)
        return Response(show_org(found), headers={"ETag": etag(found.revision)})

    @extend_schema(request=OrgFields, responses={200: dict})
    def partial_update(self, request: Request, org: str) -> Response:
        values = _input(OrgFields, request, partial=True)
        return self._update(request, org, values, "orgs:write")

    @extend_schema(responses={200: dict})
    def quota(self, request: Request, org: str) -> Response:
        found = access.org(actor_of(request), org)
        return Response(show_org(found)["quota"], headers={"ETag": etag(found.revision)})

    @extend_schema(request=QuotaFields, responses={200: dict})
    def set_quota(self, request: Request, org: str) -> Response:
        return self._update(request, org, _input(QuotaFields, request, partial=True), "platform:write")

    def _update(self, request: Request, ref: str, values: dict[str, Any], scope: str) -> Response:
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            found = access.org(tx.actor, ref, lock=True)
            access.recheck(tx.actor, scope, found.pk)
            check_revision(found.revision, expected)
            if values.get("name", found.name) != found.name:
                raise Conflict("An org keeps its name: it is in its apps' host names.", code="org_name_fixed")
            changes = {name: value for name, value in values.items() if name != "name"}
            if changes:
                services.update_org(tx, found, changes)
            return Reply(show_org(found), 200, found.revision)

        return perform(request, verb)

    @extend_schema(operation_id="orgs_members_list", responses={200: dict})
    def members(self, request: Request, org: str) -> Response:
        found = access.org(actor_of(request), org)
        rows = Membership.objects.filter(org=found).select_related("user")
        return page(request, rows, lambda members: [_show_member(member) for member in members])

    @extend_schema(request=MemberFields, responses={201: dict})
    def add_member(self, request: Request, org: str) -> Response:
        values = _input(MemberFields, request)

        def verb(tx: Transaction) -> Reply:
            found = access.org(tx.actor, org)
            access.recheck(tx.actor, "orgs:write", found.pk)
            member = services.add_member(
                tx,
                org=found,
                username=values["user"],
                role=values["role"],
                password=values.get("password"),
                acting=tx.actor,
            )
            return Reply(_show_member(member), 201)

        return perform(request, verb)

    @extend_schema(responses={204: None})
    def remove_member(self, request: Request, org: str, user: str) -> Response:
        no_body(request)

        def verb(tx: Transaction) -> Reply:
            found = access.org(tx.actor, org)
            access.recheck(tx.actor, "orgs:write", found.pk)
            services.remove_member(tx, org=found, username=user, acting=tx.actor)
            return Reply(None, 204)

        return perform(request, verb)


class TokenViewSet(ViewSet):
    scopes = {"list": "tokens:read", "create": "tokens:write", "destroy": "tokens:write"}

    @extend_schema(operation_id="tokens_list", responses={200: dict})
    def list(self, request: Request) -> Response:
        rows = access.visible(actor_of(request), ApiToken.objects.all())

        def show(found: list[ApiToken]) -> list[dict[str, Any]]:
            used = dict(
                TokenUse.objects.filter(token_id__in=[t.pk for t in found]).values_list("token_id", "last_used_at")
            )
            return [show_token(token, used.get(token.pk)) for token in found]

        return page(request, rows, show)

    @extend_schema(request=TokenFields, responses={201: dict})
    def create(self, request: Request) -> Response:
        values = _input(TokenFields, request)
        ref = values.pop("org", None)

        def verb(tx: Transaction) -> Reply:
            org = access.org(tx.actor, ref)
            access.recheck(tx.actor, "tokens:write", org.pk)
            token, secret = services.create_token(tx, org=org, acting=tx.actor, **values)
            return Reply({**show_token(token), "token": secret}, 201, token.revision, f"/tokens/{token.pk}")

        return perform(request, verb)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, pk: int) -> Response:
        no_body(request)

        def verb(tx: Transaction) -> Reply:
            token = access.visible(tx.actor, ApiToken.objects.all()).filter(pk=pk).first()
            if token is None:
                raise NotFound("There is no such token.")
            access.recheck(tx.actor, "tokens:write", token.org_id)
            services.revoke_token(tx, token)
            tx.after_commit.append(authentication.forget)
            return Reply(None, 204)

        return perform(request, verb)

"""`/me/password`: whoever is logged in to the console changes their own password.

Validates, calls one verb, answers. A token has no password, and nobody sets another's here.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts import services
from consensus.gate import Transaction
from omni.kernel.errors import FieldError, Forbidden, InvalidInput
from omni.rest.fields import StrictSerializer
from omni.rest.permissions import OPEN, actor_of, require
from omni.rest.writes import Reply, perform


class PasswordFields(StrictSerializer):
    current = serializers.CharField(max_length=200, trim_whitespace=False)
    password = serializers.CharField(min_length=12, max_length=200, trim_whitespace=False)


class MeViewSet(ViewSet):
    scopes = {"change_password": OPEN}  # of one's own session, whatever its role

    @extend_schema(operation_id="me_change_password", request=PasswordFields, responses={204: None})
    def change_password(self, request: Request) -> Response:
        """A session only. The other sessions of the user end; tokens stay as they are."""
        actor = actor_of(request)
        if actor.kind == "anonymous":
            require(actor, "orgs:read")
        if actor.kind != "user" or not isinstance(request.user, User):
            raise Forbidden("A token has no password. Log in to the console to change yours.", next="GET /admin/")
        fields = PasswordFields(data=request.data)
        fields.is_valid(raise_exception=True)
        values: dict[str, Any] = dict(fields.validated_data)
        _fit(values["password"], request.user)
        made = make_password(values["password"])  # slow on purpose, so before the gate

        def verb(tx: Transaction) -> Reply:
            services.change_password(tx, user_id=actor.id or 0, current=values["current"], made=made)
            return Reply(None, 204)

        answer = perform(request, verb)
        plain = request._request
        if hasattr(plain, "session"):  # this session goes on; its key changes with the password
            update_session_auth_hash(plain, User.objects.get(pk=actor.id))
        return answer


def _fit(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as refused:
        raise InvalidInput(errors=[FieldError("/password", "invalid", text) for text in refused.messages]) from None

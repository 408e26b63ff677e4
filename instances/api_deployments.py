"""`/app/<app>/deployments…`, deploy and rollback. Views validate, call one verb, answer."""

from __future__ import annotations

from collections.abc import Callable

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from apps.access import app as find_app
from apps.models import App
from consensus.gate import Transaction
from instances import access, queries, services
from instances.models import Deployment
from omni.rest.fields import StrictSerializer
from omni.rest.paging import flag_parameter, page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform

OVERRIDE = OpenApiParameter("override_freeze", bool, description="deploy though the app is frozen, on the record")


class RollbackFields(StrictSerializer):
    """Where to go back to; by default what ran before."""

    version = serializers.CharField(max_length=64, required=False)
    release = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)


class DeploymentViewSet(ViewSet):
    scopes = {
        "list": "apps:read",
        "retrieve": "apps:read",
        "deploy": "apps:write",
        "rollback": "apps:write",
        "cancel": "apps:write",
        "pause": "apps:write",
        "resume": "apps:write",
        "promote": "apps:write",
    }

    @extend_schema(operation_id="deployments_list", responses={200: dict})
    def list(self, request: Request, app: str) -> Response:
        found = find_app(actor_of(request), app)
        rows = Deployment.objects.filter(app_id=found.pk).select_related("release", "previous_release")
        return page(request, rows, lambda items: [queries.show_deployment(row, steps=False) for row in items])

    @extend_schema(responses={200: dict})
    def retrieve(self, request: Request, app: str, deployment_id: int) -> Response:
        _, row = access.deployment(actor_of(request), app, deployment_id)
        return Response(queries.show_deployment(row, counts=True), headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="release_deploy", request=None, parameters=[OVERRIDE], responses={202: dict})
    def deploy(self, request: Request, app: str, version: str) -> Response:
        no_body(request)
        expected, override = expected_revision(request), overrides_freeze(request)

        def verb(tx: Transaction) -> Reply:
            found = _for_write(tx, app, expected)
            return _accepted(tx, found, services.deploy_version(tx, found, version, override=override))

        return perform(request, verb)

    @extend_schema(operation_id="app_rollback", request=RollbackFields, parameters=[OVERRIDE], responses={202: dict})
    def rollback(self, request: Request, app: str) -> Response:
        fields = RollbackFields(data=request.data)
        fields.is_valid(raise_exception=True)
        version, number = fields.validated_data.get("version"), fields.validated_data.get("release")
        expected, override = expected_revision(request), overrides_freeze(request)

        def verb(tx: Transaction) -> Reply:
            found = _for_write(tx, app, expected)
            row = services.rollback(tx, found, version=version, number=number, override=override)
            return _accepted(tx, found, row)

        return perform(request, verb)

    @extend_schema(operation_id="deployment_cancel", request=None, responses={202: dict})
    def cancel(self, request: Request, app: str, deployment_id: int) -> Response:
        """What ran before comes back, by the same deployment."""
        return self._change(request, app, deployment_id, services.cancel_deployment)

    @extend_schema(operation_id="deployment_pause", request=None, responses={202: dict})
    def pause(self, request: Request, app: str, deployment_id: int) -> Response:
        """Nothing moves on until it is resumed; what is lost meanwhile is replaced by its like."""
        return self._change(request, app, deployment_id, services.pause)

    @extend_schema(operation_id="deployment_resume", request=None, responses={202: dict})
    def resume(self, request: Request, app: str, deployment_id: int) -> Response:
        return self._change(request, app, deployment_id, services.resume)

    @extend_schema(operation_id="deployment_promote", request=None, responses={202: dict})
    def promote(self, request: Request, app: str, deployment_id: int) -> Response:
        """A canary rolls on, a green set gets the requests as soon as all of it is ready."""
        return self._change(request, app, deployment_id, services.promote)

    def _change(
        self,
        request: Request,
        app: str,
        deployment_id: int,
        act: Callable[[Transaction, App, Deployment], Deployment],
    ) -> Response:
        no_body(request)
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            found, row = access.deployment(tx.actor, app, deployment_id)
            recheck(tx.actor, "apps:write", found.org_id)
            check_revision(row.revision, expected)
            return _accepted(tx, found, act(tx, found, row))

        return perform(request, verb)


def overrides_freeze(request: Request) -> bool:
    """`?override_freeze=true`: deploy though the app is frozen, on the record."""
    return flag_parameter(request, "override_freeze", False)


def _for_write(tx: Transaction, ref: str, expected: int | None) -> App:
    found = App.objects.select_for_update().get(pk=find_app(tx.actor, ref).pk)
    recheck(tx.actor, "apps:write", found.org_id)
    check_revision(found.revision, expected)
    return found


def _accepted(tx: Transaction, app: App, row: Deployment) -> Reply:
    shown = queries.show_deployment(row)
    plan = services.plan_now(tx, app) if tx.rehearsal else None
    return Reply(shown, 202, row.revision, shown["links"]["self"], plan)

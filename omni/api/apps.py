"""`/app…`: the views of an app that need more than one layer (its releases, its instances, its figures).

Validates, calls verbs, answers. A change that running instances need becomes the next release and a deployment
(DECISIONS 23); what that is, `releases` and `instances` know.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import access as accounts_access
from accounts.own_org import own_org
from apps import domains, lean_access
from apps import services as apps
from apps.access import app as find_app
from apps.access import app_id
from apps.access import apps as visible_apps
from apps.configuration import current_env, shown_env
from apps.fields import AppFields, ConfigFields, CreateAppFields, ScaleFields
from apps.models import App, ConfigRevision
from apps.representation import app as show
from consensus.gate import Transaction
from instances import queries
from instances import services as instances
from instances.api_deployments import OVERRIDE, overrides_freeze
from instances.preview import plan_now
from instances.telemetry import series, spans
from instances.telemetry.figures import figures
from instances.volumes import services as volumes
from instances.volumes.api import CONFIRM, losing
from instances.volumes.representation import volume as show_volume
from instances.volumes.snapshots.holding import kept as kept_snapshots
from omni.kernel.errors import Conflict, NotFound
from omni.rest.lean import LeanViewSet
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform
from releases import services as releases

_STATUSES = ("created", "deploying", "running", "degraded", "stopped", "crashed", "deleting")


def _shown(app: App) -> dict[str, Any]:
    return show(app, shown_env(apps.current_revision(app)))


def _proofs(app: App, fields: dict[str, Any]) -> dict[str, Any]:
    """For who has just set domains: how each is to be proven."""
    return {"custom_domains": domains.details(app)} if "domains" in fields else {}


def _page_of(rows: list[App]) -> list[dict[str, Any]]:
    numbers = Q(pk__in=[])
    for app in rows:
        numbers |= Q(app=app, number=app.config_number)
    env = {revision.app_id: shown_env(revision) for revision in ConfigRevision.objects.filter(numbers)}
    return [show(app, env.get(app.pk, {})) for app in rows]


# Fields whose change the controller carries out without a new release.
_SCALING = {"instances", "process_counts", "singleton", "placement"}


class AppViewSet(LeanViewSet):
    lean = frozenset({"create", "info", "metrics"})
    scopes = {
        "create": "apps:write",
        "list": "apps:read",
        "info": "apps:read",
        "partial_update": "apps:write",
        "destroy": "apps:write",
        "metrics": "apps:read",
        "start": "apps:write",
        "stop": "apps:write",
        "restart": "apps:write",
        "scale": "apps:write",
        "config": "apps:read",
        "set_config": "apps:write",
    }

    @extend_schema(request=CreateAppFields, responses={201: dict}, operation_id="app_create")
    def create(self, request: Request) -> Response:
        fields = CreateAppFields.read(request.data)
        ref = fields.pop("org", None)

        def verb(tx: Transaction) -> Reply:
            if ref is None:
                org = own_org(tx, "apps:write")
            else:
                org = accounts_access.org(tx.actor, ref)
                accounts_access.recheck(tx.actor, "apps:write", org.pk)
            app, env = apps.create_app(tx, org=org, fields=fields)
            plan = plan_now(tx, app) if tx.rehearsal else None
            return Reply({**show(app, env), **_proofs(app, fields)}, 201, app.revision, f"/app/{app.pk}/info", plan)

        return perform(request, verb)

    @extend_schema(
        operation_id="app_list",
        parameters=[OpenApiParameter("org", str), OpenApiParameter("q", str), OpenApiParameter("status", str)],
        responses={200: dict},
    )
    def list(self, request: Request) -> Response:
        actor = actor_of(request)
        rows = visible_apps(actor).select_related("org")
        if org := request.query_params.get("org"):
            rows = rows.filter(org=accounts_access.org(actor, org))
        if text := request.query_params.get("q"):
            rows = rows.filter(Q(name__icontains=text) | Q(description__icontains=text))
        if status := request.query_params.get("status"):
            rows = rows.filter(status__in=[part for part in status.split(",") if part in _STATUSES])
        return page(request, rows, _page_of)

    @extend_schema(operation_id="app_info", responses={200: dict})
    def info(self, request: Request, app: str) -> Response:
        found = lean_access.app(actor_of(request), app)
        shown = show(found, current_env(found))
        body = {**shown, "org": {"id": found.org_id, "name": found.org.name}, **queries.info(found)}
        body["custom_domains"] = domains.details(found)
        body["volumes"] = [show_volume(row) for row in volumes.of_app(found)] if found.volume_node else []
        body["links"] = {**shown["links"], **body.get("links", {})}
        return Response(body, headers={"ETag": etag(found.revision)})

    @extend_schema(request=AppFields, parameters=[OVERRIDE], responses={200: dict})
    def partial_update(self, request: Request, app: str) -> Response:
        fields = AppFields.read(request.data)
        expected, override = expected_revision(request), overrides_freeze(request)

        def verb(tx: Transaction) -> Reply:
            found = self._for_write(tx, app, expected)
            self._refuse_move(tx, found, fields)
            return self._changed(tx, found, fields, override=override)

        return perform(request, verb)

    @extend_schema(parameters=[CONFIRM], responses={202: dict})
    def destroy(self, request: Request, app: str) -> Response:
        """An app with volumes or snapshots of them only with `?confirm=<name>`: their data goes with it."""
        no_body(request)
        expected, given = expected_revision(request), request.query_params.get("confirm")

        def verb(tx: Transaction) -> Reply:
            found = self._for_write(tx, app, expected)
            lost, kept = volumes.of_app(found), kept_snapshots(found)
            if (lost or kept) and not tx.rehearsal:
                accounts_access.recheck(tx.actor, "volumes:write", found.org_id)
                again = f"DELETE /app/{found.pk}"
                volumes.confirm(lost, found.name, given, f"Deleting {found.name}", again, kept)
            instances.delete(tx, found)
            plan = plan_now(tx, found) if tx.rehearsal else None
            if plan is not None and (lost or kept):
                losses = losing(lost, found.name, kept)
                plan = {**plan, "actions": [*plan["actions"], *losses["actions"]], "confirm": losses["confirm"]}
            return Reply(_shown(found), 202, found.revision, f"/app/{found.pk}/info", plan)

        return perform(request, verb)

    @extend_schema(
        operation_id="app_metrics",
        parameters=[OpenApiParameter("window", str), OpenApiParameter("step", str)],
        responses={200: dict},
    )
    def metrics(self, request: Request, app: str) -> Response:
        actor = actor_of(request)
        found = figures(int(app) if app.isascii() and app.isdigit() and len(app) < 19 else app_id(actor, app))
        if found is None or not accounts_access.may_see(actor, found.org_id):
            raise NotFound("There is no such app.", next="GET /app")
        span = spans.read(request.query_params.get("window"), request.query_params.get("step"))
        if span is not None:
            return Response({**found.body, "series": series.of_app(found.body["app_id"], span)})
        if request.headers.get("If-None-Match") == found.tag:
            return Response(status=304, headers={"ETag": found.tag})
        return Response(found.json, headers={"ETag": found.tag})

    @extend_schema(request=None, responses={202: dict})
    def start(self, request: Request, app: str) -> Response:
        no_body(request)
        return self._deploying(request, app, instances.start)

    @extend_schema(request=None, responses={202: dict})
    def stop(self, request: Request, app: str) -> Response:
        no_body(request)
        return self._deploying(request, app, instances.stop)

    @extend_schema(request=None, responses={202: dict})
    def restart(self, request: Request, app: str) -> Response:
        no_body(request)
        return self._deploying(request, app, instances.restart)

    @extend_schema(request=ScaleFields, responses={202: dict})
    def scale(self, request: Request, app: str) -> Response:
        fields = ScaleFields.read(request.data)
        wanted = {**({"web": fields["instances"]} if "instances" in fields else {}), **fields.get("processes", {})}
        return self._deploying(request, app, lambda tx, found: instances.scale(tx, found, wanted))

    @extend_schema(responses={200: dict})
    def config(self, request: Request, app: str) -> Response:
        found = find_app(actor_of(request), app)
        return Response(self._config(found), headers={"ETag": etag(found.revision)})

    @extend_schema(request=ConfigFields, parameters=[OVERRIDE], responses={200: dict})
    def set_config(self, request: Request, app: str) -> Response:
        fields = ConfigFields.read(request.data)
        expected, override = expected_revision(request), overrides_freeze(request)

        def verb(tx: Transaction) -> Reply:
            found = self._for_write(tx, app, expected)
            reply = self._changed(tx, found, fields, override=override)
            reply.data = {**self._config(found), "deployment": reply.data.get("deployment")}
            return reply

        return perform(request, verb)

    def _config(self, app: App) -> dict[str, Any]:
        revision = apps.current_revision(app)
        return {"env": shown_env(revision), "number": revision.number, "revision": app.revision}

    def _for_write(self, tx: Transaction, ref: str, expected: int | None) -> App:
        app = find_app(tx.actor, ref, lock=True)
        accounts_access.recheck(tx.actor, "apps:write", app.org_id)
        check_revision(app.revision, expected)
        return app

    def _refuse_move(self, tx: Transaction, app: App, fields: dict[str, Any]) -> None:
        ref = fields.pop("org", None)
        if ref is not None and accounts_access.org(tx.actor, ref).pk != app.org_id:
            raise Conflict("An app stays in its org: its members, quotas and host names hang on it.", code="org_fixed")

    def _changed(self, tx: Transaction, app: App, fields: dict[str, Any], *, override: bool) -> Reply:
        """Apply a patch; a configuration change becomes a release, a scaling change a deployment."""
        changed, revision = apps.update_app(tx, app, fields)
        deployment = None
        if revision is not None:
            release = releases.change_configuration(tx, app, revision)
            if release is not None:
                deployment = instances.deploy(tx, app, release, kind="config", override=override)
        elif changed & _SCALING:
            deployment = instances.rescaled(tx, app)
        body = {**_shown(app), **_proofs(app, fields)}
        if deployment is not None:
            body["deployment"] = queries.show_deployment(deployment)
        return Reply(body, 200, app.revision, "", plan_now(tx, app) if tx.rehearsal else None)

    def _deploying(self, request: Request, ref: str, act: Any) -> Response:
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            app = self._for_write(tx, ref, expected)
            deployment = act(tx, app)
            plan = plan_now(tx, app) if tx.rehearsal else None
            if deployment is None:  # it is so already: nothing to wait for
                return Reply(_shown(app), 202, app.revision, f"/app/{app.pk}/info", plan)
            shown = queries.show_deployment(deployment)
            return Reply(shown, 202, deployment.revision, shown["links"]["self"], plan)

        return perform(request, verb)

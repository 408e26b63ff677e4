"""`/app/<app>/volumes…`. Views validate, call one verb, answer."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from apps.access import NAME
from apps.access import app as find_app
from apps.fields import refuse
from apps.models import App
from consensus.gate import Transaction
from instances.volumes import representation, services
from instances.volumes.models import Volume
from omni.rest.fields import StrictSerializer
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform

CONFIRM = OpenApiParameter("confirm", str, description="the name of what is to be destroyed, as a confirmation")


class VolumeFields(StrictSerializer):
    """The body of POST /app/<app>/volumes. `path`: where instances find it; `node`: default, where there is room."""

    name = serializers.CharField(max_length=63)
    path = serializers.CharField(max_length=200)
    node = serializers.CharField(max_length=64, required=False)

    def validate_name(self, value: str) -> str:
        if not NAME.fullmatch(value):
            raise refuse("invalid_name", "Lower-case letters, digits and dashes, beginning with a letter.")
        return value


class VolumeViewSet(ViewSet):
    scopes = {"list": "volumes:read", "retrieve": "volumes:read", "create": "volumes:write",
              "destroy": "volumes:write"}  # fmt: skip

    @extend_schema(operation_id="volumes_list", responses={200: dict})
    def list(self, request: Request, app: str) -> Response:
        rows = Volume.objects.filter(app_id=find_app(actor_of(request), app).pk, live=True)
        return page(request, rows, lambda items: [representation.volume(row) for row in items])

    @extend_schema(operation_id="volume_retrieve", responses={200: dict})
    def retrieve(self, request: Request, app: str, name: str) -> Response:
        row = services.find(find_app(actor_of(request), app), name)
        return Response(representation.volume(row), headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="volume_create", request=VolumeFields, responses={201: dict})
    def create(self, request: Request, app: str) -> Response:
        """An empty directory on one node, which its app's instances find at `path` from their next start on."""
        fields = VolumeFields.read(request.data)

        def verb(tx: Transaction) -> Reply:
            found = self._for_write(tx, app)
            row, why = services.create(tx, found, fields["name"], fields["path"], fields.get("node"))
            shown = representation.volume(row)
            plan = {"actions": [{"action": "create_volume", "node": row.node_name, "why": why}]}
            return Reply(shown, 201, row.revision, shown["links"]["self"], plan if tx.rehearsal else None)

        return perform(request, verb)

    @extend_schema(operation_id="volume_delete", parameters=[CONFIRM], request=None, responses={200: dict})
    def destroy(self, request: Request, app: str, name: str) -> Response:
        """Destroys its data; only with `?confirm=<name>`."""
        no_body(request)
        expected, given = expected_revision(request), request.query_params.get("confirm")

        def verb(tx: Transaction) -> Reply:
            found = self._for_write(tx, app)
            row = services.find(found, name)
            check_revision(row.revision, expected)
            if not tx.rehearsal:
                again = f"DELETE /app/{found.pk}/volumes/{name}"
                services.confirm([row], name, given, f"Deleting the volume {name}", again)
            services.delete(tx, found, row)
            row.refresh_from_db()
            return Reply(representation.volume(row), 200, row.revision, plan=losing([row], name))

        return perform(request, verb)

    def _for_write(self, tx: Transaction, ref: str) -> App:
        app = find_app(tx.actor, ref, lock=True)
        recheck(tx.actor, "volumes:write", app.org_id)
        return app


def losing(rows: list[Volume], name: str, snapshots: int = 0) -> dict[str, Any]:
    """What a dry run shows of the data that would go, and what confirms it."""
    actions = [{"action": "destroy_volume", **entry} for entry in representation.loss(rows)]
    actions += [{"action": "destroy_snapshots", "count": snapshots}] if snapshots else []
    return {"actions": actions, "confirm": name}

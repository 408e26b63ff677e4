"""`/app/<app>/snapshots…`, `/app/<app>/volumes/<name>/snapshots`, `…/restores…`: validate, call one verb, answer."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from apps.access import app as find_app
from apps.models import App
from consensus.gate import Transaction
from instances.volumes import services as volumes
from instances.volumes.api import CONFIRM, losing
from instances.volumes.snapshots import representation, services
from instances.volumes.snapshots.models import LIVE, STOPPED, VolumeRestore
from omni.kernel.errors import Conflict, NotFound
from omni.rest.fields import StrictSerializer
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform


class SnapshotFields(StrictSerializer):
    """`consistency`: `live` takes the files of a running app one after the other, `stopped` wants the app stopped and
    keeps it so meanwhile. Default: `stopped` when nothing of the app runs, else `live`."""

    consistency = serializers.ChoiceField([LIVE, STOPPED], required=False)


class RestoreFields(StrictSerializer):
    """`snapshot`: its id. `stop`: stop the app first, if it runs; it stays stopped."""

    snapshot = serializers.IntegerField(min_value=1)
    stop = serializers.BooleanField(default=False)


class SnapshotViewSet(ViewSet):
    scopes = {"list": "volumes:read", "of_volume": "volumes:read", "retrieve": "volumes:read",
              "create": "volumes:write", "destroy": "volumes:write"}  # fmt: skip

    @extend_schema(operation_id="snapshots_list", responses={200: dict})
    def list(self, request: Request, app: str) -> Response:
        """Of all volumes of the app, also of those that are gone."""
        rows = services.snapshots_of(find_app(actor_of(request), app))
        return page(request, rows, lambda items: [representation.snapshot(row) for row in items])

    @extend_schema(operation_id="volume_snapshots_list", responses={200: dict})
    def of_volume(self, request: Request, app: str, name: str) -> Response:
        rows = services.snapshots_of(find_app(actor_of(request), app), name)
        return page(request, rows, lambda items: [representation.snapshot(row) for row in items])

    @extend_schema(operation_id="snapshot_retrieve", responses={200: dict})
    def retrieve(self, request: Request, app: str, number: int) -> Response:
        row = services.find(find_app(actor_of(request), app), number)
        return Response(representation.snapshot(row), headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="snapshot_create", request=SnapshotFields, responses={202: dict})
    def create(self, request: Request, app: str, name: str) -> Response:
        """What is in the volume, kept in the artifact storage. The newest few of a volume are kept."""
        fields = SnapshotFields.read(request.data)

        def verb(tx: Transaction) -> Reply:
            found = _for_write(tx, app)
            row = services.create(tx, found, volumes.find(found, name), fields.get("consistency"))
            shown = representation.snapshot(row)
            action = {"action": "snapshot_volume", "volume": name, "node": row.node_name,
                      "consistency": row.consistency}  # fmt: skip
            plan = {"actions": [action]} if tx.rehearsal else None
            return Reply(shown, 202, row.revision, shown["links"]["self"], plan)

        return perform(request, verb)

    @extend_schema(operation_id="snapshot_delete", parameters=[CONFIRM], request=None, responses={200: dict})
    def destroy(self, request: Request, app: str, number: int) -> Response:
        """Only with `?confirm=<id>` when there is data to lose; one that is being taken is called off."""
        no_body(request)
        expected, given = expected_revision(request), request.query_params.get("confirm")

        def verb(tx: Transaction) -> Reply:
            found = _for_write(tx, app)
            row = services.find(found, number)
            check_revision(row.revision, expected)
            lost = {"action": "delete_snapshot", "snapshot": row.pk, "volume": row.volume_name,
                    "size_bytes": row.size_bytes}  # fmt: skip
            if row.artifact_id is not None and given != str(row.pk) and not tx.rehearsal:
                again = f"DELETE /app/{found.pk}/snapshots/{row.pk}?confirm={row.pk}"
                raise Conflict(f"Snapshot {row.pk} of {row.volume_name} would be lost for good; nothing was done.",
                               code="confirmation_needed", next=again)  # fmt: skip
            services.delete(tx, row)
            row.refresh_from_db()
            return Reply(representation.snapshot(row), 200, row.revision,
                         plan={"actions": [lost], "confirm": str(row.pk)})  # fmt: skip

        return perform(request, verb)


class RestoreViewSet(ViewSet):
    scopes = {"list": "volumes:read", "retrieve": "volumes:read", "create": "volumes:write"}

    @extend_schema(operation_id="restores_list", responses={200: dict})
    def list(self, request: Request, app: str, name: str) -> Response:
        rows = VolumeRestore.objects.filter(app=find_app(actor_of(request), app), volume_name=name)
        return page(request, rows, lambda items: [representation.restore(row) for row in items])

    @extend_schema(operation_id="restore_retrieve", responses={200: dict})
    def retrieve(self, request: Request, app: str, name: str, number: int) -> Response:
        found = find_app(actor_of(request), app)
        row = VolumeRestore.objects.filter(app=found, volume_name=name, pk=number).first()
        if row is None:
            raise NotFound("There is no such restore.", next=f"GET /app/{found.pk}/volumes/{name}/restores")
        return Response(representation.restore(row), headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="restore_create", parameters=[CONFIRM], request=RestoreFields, responses={202: dict})
    def create(self, request: Request, app: str, name: str) -> Response:
        """Replaces all that is in the volume; only with `?confirm=<name>`. Nothing of the app may run: see `stop`."""
        fields, given = RestoreFields.read(request.data), request.query_params.get("confirm")

        def verb(tx: Transaction) -> Reply:
            found = _for_write(tx, app)
            volume, source = volumes.find(found, name), services.find(found, fields["snapshot"])
            if not tx.rehearsal:
                again = f"POST /app/{found.pk}/volumes/{name}/restores"
                volumes.confirm([volume], name, given, f"Restoring snapshot {source.pk}", again)
            row = services.restore(tx, found, volume, source, stop=fields["stop"])
            shown = representation.restore(row)
            return Reply(shown, 202, row.revision, shown["links"]["self"], _plan(losing([volume], name), row))

        return perform(request, verb)


def _for_write(tx: Transaction, ref: str) -> App:
    app = find_app(tx.actor, ref, lock=True)
    recheck(tx.actor, "volumes:write", app.org_id)
    return app


def _plan(lost: dict[str, Any], row: VolumeRestore) -> dict[str, Any]:
    restored = {"action": "restore_volume", "volume": row.volume_name, "node": row.node_name,
                "snapshot": row.snapshot_number}  # fmt: skip
    return {**lost, "actions": [*lost["actions"], restored]}

"""`PUT /agent/snapshots/<id>`: a node's agent brings the archive of a snapshot. Not part of the public API.

Called by the front like an upload: first to judge, at last to take over the file. The row comes with the agent's
report.
"""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from instances.volumes.snapshots import jobs
from omni.kernel.errors import Conflict, Forbidden, UnsupportedMedia
from omni.rest.permissions import actor_of
from releases.storage import store


class SnapshotArchiveViewSet(ViewSet):
    scopes = {"keep": "agent:sync"}

    @extend_schema(exclude=True)
    def keep(self, request: Request, number: int) -> Response:
        actor = actor_of(request)
        if actor.kind != "agent":
            raise Forbidden("Only a node's own token may do that.", code="not_a_node")
        if not jobs.is_wanted(actor.name, number):
            raise Conflict("Nobody waits for that snapshot any more.", code="snapshot_not_wanted")
        phase, upload = request.META.get("omni.phase"), request.META.get("omni.upload")
        if phase == "preflight":
            store().check_room()
            return Response(status=204)
        if upload is None:
            raise UnsupportedMedia(f"Send the archive as {jobs.MEDIA_TYPE}.")
        if phase == "inspect":
            return Response(status=204, headers={"Omni-Keep": "yes"})
        store().put(upload)
        return Response({"sha256": upload.sha256, "size": upload.size}, status=201)

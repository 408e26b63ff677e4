"""Uploads, builds, releases over HTTP. Each view validates, calls one verb, answers.

`deploy` and `rollback` are in `instances`, which knows deployments; their release part is `releases.services`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import IntegrityError
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from apps import access as app_access
from apps.models import DesiredState
from consensus.gate import Transaction
from omni.kernel import clock, failpoints
from omni.kernel.clock import rfc3339
from omni.kernel.errors import Conflict, UnsupportedMedia
from omni.rest import paging
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, etag, is_dry_run, key_scope, no_body, perform
from releases import access, build_log, intake, representation, schema, services
from releases.models import Build, Release
from releases.states import BuildStatus
from releases.storage import store

_LAST_LINES = dt.timedelta(seconds=2)  # a worker sends the last of its log around `finish`
_PAGE_OF_BUILDS = schema.page_of("BuildPage", schema.BuildShape)
_PAGE_OF_RELEASES = schema.page_of("ReleasePage", schema.ReleaseShape)
_PAGE_OF_LINES = schema.page_of("BuildLogPage", schema.BuildLogLineShape)


class ReleaseViewSet(ViewSet):
    """`/app/<app>/releases`, `/app/<app>/release/<version>`, and the upload that makes them."""

    scopes = {"list": "builds:read", "retrieve": "builds:read", "upload": "builds:write"}

    @extend_schema(responses=_PAGE_OF_RELEASES, parameters=[schema.LIMIT, schema.CURSOR, schema.VERSION])
    def list(self, request: Request, app: str) -> Response:
        owner, found = access.releases(actor_of(request), app)
        if version := request.query_params.get("version"):
            found = found.filter(version=version)
        found = found.select_related("artifact", "package", "config", "build")
        return paging.page(
            request, found, lambda rows: [representation.release(r, owner.desired_release) for r in rows]
        )

    @extend_schema(responses=schema.ReleaseShape)
    def retrieve(self, request: Request, app: str, version: str) -> Response:
        owner, row = access.release(actor_of(request), app, version)
        shown = representation.release(row, owner.desired_release)
        # whether it is the desired one is a fact of the app, so the app's revision is part of the tag
        return Response(shown, headers={"ETag": f'"{row.pk}.{owner.revision}"'})

    @extend_schema(
        request=schema.UPLOAD_BODY,
        responses={202: schema.BuildShape, 200: schema.BuildShape},
        parameters=[schema.DEPLOY, schema.DIGEST, schema.KEY],
    )
    def upload(self, request: Request, app: str, version: str) -> Response:
        """Called by the front before the body is read, and with the body on disk before it is copied and to take it."""
        actor = actor_of(request)
        owner = access.app(actor, app)
        intake.check_version(version)
        announced = intake.announced_sha256(request.headers.get("Content-Digest", ""))
        if owner.desired_state == DesiredState.DELETED:
            raise Conflict("The app is being deleted.", code="app_deleting")
        deploy_query = request.query_params.get("deploy")
        intake.deploy_wanted(deploy_query, None)
        if request.META.get("omni.phase") == "preflight":
            store().check_room()
            return Response(status=204, headers={"Omni-Key-Scope": key_scope(request)})
        upload = request.META.get("omni.upload")
        if upload is None:
            raise UnsupportedMedia(f"Send a form with a file, or one of {', '.join(schema.ARCHIVE_TYPES)}.")
        intake.check_digest(announced, upload.sha256)
        media_type = intake.upload_type(upload.path, upload.media_type, owner.runtime)
        deploy = intake.deploy_wanted(deploy_query, upload.fields.get("deploy"))
        sha256, size = upload.sha256, upload.size

        keeps = not is_dry_run(request) and services.existing_build(owner, version, sha256) is None
        if request.META.get("omni.phase") == "inspect":
            return Response(status=204, headers={"Omni-Keep": "yes" if keeps else "no"})

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, "builds:write", owner.org_id)
            target = app_access.app(tx.actor, owner.pk)
            accepted = services.accept_upload(
                tx, app=target, version=version, sha256=sha256, size=size, media_type=media_type, deploy=deploy
            )
            row = accepted.build
            return Reply(
                _shown(row),
                status=202 if accepted.created else 200,
                revision=row.revision,
                location=f"/app/{owner.pk}/builds/{row.pk}",
            )

        if keeps:
            store().put(upload)
            failpoints.hit("after_blob_fsync_before_row")
        try:
            return perform(request, verb, fingerprint=f"{sha256}:{deploy}")
        except IntegrityError:  # the same version came at the same moment; now it is there to be compared with
            return perform(request, verb, fingerprint=f"{sha256}:{deploy}")


class BuildViewSet(ViewSet):
    """`/app/<app>/builds…`"""

    scopes = {"list": "builds:read", "retrieve": "builds:read", "logs": "builds:read", "cancel": "builds:write"}

    @extend_schema(responses=_PAGE_OF_BUILDS, parameters=[schema.LIMIT, schema.CURSOR, schema.STATUS, schema.VERSION])
    def list(self, request: Request, app: str) -> Response:
        _, found = access.builds(actor_of(request), app)
        return paging.page(request, _filtered(request, found).select_related("artifact"), _shown_all)

    @extend_schema(responses=schema.BuildShape)
    def retrieve(self, request: Request, app: str, build_id: int) -> Response:
        row = access.build(actor_of(request), app, build_id)
        return Response(_shown(row), headers={"ETag": etag(row.revision)})

    @extend_schema(request=None, responses={202: schema.BuildShape}, parameters=[schema.KEY])
    def cancel(self, request: Request, app: str, build_id: int) -> Response:
        no_body(request)
        row = access.build(actor_of(request), app, build_id)

        def verb(tx: Transaction) -> Reply:
            recheck(tx.actor, "builds:write", row.app.org_id)
            build = services.cancel_build(tx, build=access.build(tx.actor, app, build_id))
            return Reply(_shown(build), 202, build.revision, f"/app/{build.app_id}/builds/{build.pk}")

        return perform(request, verb)

    @extend_schema(responses=_PAGE_OF_LINES, parameters=[schema.LIMIT, schema.CURSOR, schema.TAIL])
    def logs(self, request: Request, app: str, build_id: int) -> Response:
        """Oldest first. Each line's `cursor` leads to the lines after it, also to those not written yet."""
        row = access.build(actor_of(request), app, build_id)
        limit = paging.limit_of(request)
        cursor = request.query_params.get("cursor")
        if cursor:
            lines, more = _after_cursor(row.pk, cursor, limit)
        elif "tail" in request.query_params:
            tail = paging.int_parameter(request, "tail", default=limit, low=1, high=paging.MAX_LIMIT)
            lines, more = build_log.backward(row.pk, None, tail), False
        else:
            lines, more = _forward(row.pk, 0, limit)
        items = [_line(line) for line in lines]
        first = lines[0]["seq"] if lines else 0
        earlier = bool(lines) and build_log.has_before(row.pk, first)
        response = paging.answer(
            request,
            items,
            next_cursor=items[-1]["cursor"] if items and more else None,
            previous_cursor=paging.encode_cursor("<", str(first)) if earlier else None,
        )
        response.data["ended"] = _ended(row)
        return response


def _filtered(request: Request, found: QuerySet[Build]) -> QuerySet[Build]:
    status, version = request.query_params.get("status"), request.query_params.get("version")
    if status is not None:
        if status not in BuildStatus.values:
            raise paging.refused("status", f"One of {', '.join(BuildStatus.values)} is wanted.")
        found = found.filter(status=status)
    return found.filter(version=version) if version else found


def _shown(row: Build) -> dict[str, Any]:
    return _shown_all([row])[0]


def _shown_all(rows: list[Build]) -> list[dict[str, Any]]:
    """With the ids of their releases, in one query for all of them."""
    ended = [row.pk for row in rows if row.release_number is not None]
    made = Release.objects.filter(build_id__in=ended).values_list("build_id", "number", "pk") if ended else []
    ids = {(build_id, number): pk for build_id, number, pk in made}
    return [representation.build(row, ids.get((row.pk, row.release_number or 0))) for row in rows]


def _after_cursor(build_id: int, cursor: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    direction, key = paging.decode_cursor(cursor)
    if not (key.isascii() and key.isdigit() and len(key) < 19):
        raise paging.refused("cursor", "Take it from a line, or from `next` or `previous` of an answer.")
    if direction == "<":
        return build_log.backward(build_id, int(key), limit), True
    return _forward(build_id, int(key), limit)


def _forward(build_id: int, after: int, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """One line more is asked for than shown, to know whether there is a next page."""
    rows, lines = 0, build_log.forward(build_id, after, limit + 1)
    kept: list[dict[str, Any]] = []
    for line in lines:
        rows += not line.get("gap", False)
        if rows > limit:
            return kept, True
        kept.append(line)
    return kept, False


def _ended(row: Build) -> dict[str, Any] | None:
    """How the build ended, once no line can come any more: a follower stops there."""
    if row.finished_at is None or clock.now() - row.finished_at < _LAST_LINES:
        return None
    return {"status": row.status, "release_number": row.release_number}


def _line(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "cursor": paging.encode_cursor(">", str(line["seq"])),
        "at": rfc3339(line["at"]),
        "attempt": line["attempt"],
        "stream": line["stream"],
        "line": line["line"],
    }

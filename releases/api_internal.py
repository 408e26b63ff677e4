"""What build workers call: claim, heartbeat, log, artifact, package, finish (scope `build:work`).

Owns the translation of `releases.contract` messages into verbs. A worker proves by its attempt's token that a build is
still its own. Claim and finish may be repeated under an Idempotency-Key; heartbeats mostly write nothing.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import FileResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from consensus.gate import Transaction
from omni.kernel import clock, failpoints
from omni.kernel.errors import FieldError, InvalidInput, UnsupportedMedia
from omni.rest import paging
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, perform
from releases import build_log, intake, services
from releases.copies import stored_size
from releases.services import BuildResult, Claimed, Renewal
from releases.storage import store

_STEP_STATUS = ("pending", "running", "succeeded", "failed", "cancelled", "skipped")
_STEPS_MAX = 32
_PROCESS_TYPE = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"  # as `Procfile` may name them


class _Step(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=32)
    status = serializers.ChoiceField(_STEP_STATUS)
    started_at = serializers.CharField(max_length=40, allow_null=True, default=None)
    finished_at = serializers.CharField(max_length=40, allow_null=True, default=None)


class _Attempt(serializers.Serializer[Any]):
    token = serializers.CharField(max_length=200)


class _Heartbeat(_Attempt):
    builder = serializers.CharField(max_length=16, allow_blank=True, allow_null=True, default="")
    steps = serializers.ListField(child=_Step(), max_length=_STEPS_MAX, default=list)


class _Package(serializers.Serializer[Any]):
    sha256 = serializers.RegexField(r"^[0-9a-f]{64}$")
    size = serializers.IntegerField(min_value=0)


class _Error(serializers.Serializer[Any]):
    code = serializers.CharField(max_length=64)
    detail = serializers.CharField(allow_blank=True, default="", trim_whitespace=False)


class _Finish(_Heartbeat):
    outcome = serializers.ChoiceField(["succeeded", "failed", "cancelled"])
    package = _Package(allow_null=True, default=None)
    # an empty command is the image's own
    process_types = serializers.DictField(
        child=serializers.CharField(max_length=4000, allow_blank=True), allow_null=True, default=dict
    )
    image = serializers.CharField(max_length=500, allow_blank=True, default="")
    error = _Error(allow_null=True, default=None)

    def validate_process_types(self, value: dict[str, str] | None) -> dict[str, str]:
        name = serializers.RegexField(_PROCESS_TYPE)
        return {str(name.run_validation(key)): command for key, command in (value or {}).items()}


@extend_schema(exclude=True)
class WorkerBuildViewSet(ViewSet):
    """`/internal/builds/<id>/…`"""

    scopes = {"claim": "build:work", "heartbeat": "build:work", "logs": "build:work", "finish": "build:work"}

    def claim(self, request: Request, build_id: int) -> Response:
        actor = actor_of(request)
        said = request.data.get("worker") if isinstance(request.data, dict) else None
        worker = str(said or actor.name)

        def verb(tx: Transaction) -> Reply:
            claimed = services.claim_build(tx, build_id=build_id, worker=worker)
            return Reply(_claim(claimed))

        return perform(request, verb, cause=f"claimed by {worker}"[:200])

    def heartbeat(self, request: Request, build_id: int) -> Response:
        body = _valid(_Heartbeat, request)
        builder, steps, token = body["builder"] or "", _plain(body["steps"]), body["token"]
        build = services.check_attempt(build_id, token)
        renewal = services.renewal_of(build, clock.now(), builder, steps)
        if not renewal.write:
            return Response(_renewed(renewal))

        def verb(tx: Transaction) -> Reply:
            return Reply(
                _renewed(services.renew_lease(tx, build_id=build_id, token=token, builder=builder, steps=steps))
            )

        return perform(request, verb, cause="heartbeat")

    def logs(self, request: Request, build_id: int) -> Response:
        """Telemetry: outside the gate, taken by any member, also shortly after the build's end."""
        data = request.data if isinstance(request.data, dict) else {}
        first_seq, lines = data.get("first_seq"), data.get("lines")
        if not isinstance(first_seq, int) or not 0 <= first_seq < 1 << 31 or not isinstance(lines, list):
            raise _refused("/first_seq", "first_seq and lines are wanted.")
        if len(lines) > build_log.BATCH_MAX:
            raise _refused("/lines", f"At most {build_log.BATCH_MAX} lines a batch are taken.")
        build = services.check_attempt(build_id, str(data.get("token", "")))
        acked = build_log.append(build.pk, build.attempt, first_seq, _lines(lines))
        return Response({"acked": acked})

    def finish(self, request: Request, build_id: int) -> Response:
        body = _valid(_Finish, request)
        result = _result(body)
        if result.outcome == "succeeded":
            stored_size(result.package_sha256)  # asks other hosts, if it must, before the transaction

        def verb(tx: Transaction) -> Reply:
            build = services.finish_build(tx, build_id=build_id, token=body["token"], result=result)
            failpoints.hit("build_done_before_commit")
            return Reply({"release": build.release_number, "status": build.status})

        return perform(request, verb, cause=f"build {result.outcome}")


@extend_schema(exclude=True)
class WorkerArtifactViewSet(ViewSet):
    """`/internal/artifacts/<sha256>`, `/internal/packages/<sha256>`"""

    scopes = {"retrieve": "build:work", "store_package": "build:work"}

    def retrieve(self, request: Request, sha256: str) -> FileResponse:
        return FileResponse(store().open(sha256), content_type="application/octet-stream")

    def store_package(self, request: Request, sha256: str) -> Response:
        """Called by the front like an upload. The row comes with `finish`."""
        build_id = paging.int_parameter(request, "build", default=0, low=1, high=2**62)
        services.check_attempt(build_id, request.headers.get("Omni-Build-Token", ""))
        if request.META.get("omni.phase") == "preflight":
            return Response(status=204)
        upload = request.META.get("omni.upload")
        if upload is None:
            raise UnsupportedMedia("Send the package as application/x-tar.")
        intake.check_digest(sha256, upload.sha256)
        if request.META.get("omni.phase") == "inspect":
            return Response(status=204, headers={"Omni-Keep": "yes"})
        known = store().size(sha256) == upload.size
        store().put(upload)
        return Response({"sha256": sha256, "size": upload.size}, status=200 if known else 201)


def _valid(kind: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    body = kind(data=request.data)
    body.is_valid(raise_exception=True)
    valid: dict[str, Any] = body.validated_data
    return valid


def _claim(claimed: Claimed) -> dict[str, Any]:
    build, limits = claimed.build, settings.CONFIG.limits
    artifact = build.artifact
    return {
        "build_id": build.pk,
        "app": build.app.name,
        "app_id": build.app_id,
        "version": build.version,
        "attempt": build.attempt,
        "token": claimed.token,
        "lease_s": settings.CONFIG.timings.build_lease_s,
        "artifact": {"sha256": artifact.pk, "size": artifact.size, "media_type": artifact.media_type},
        "runtime": build.app.runtime,
        "registries": services.registry_logins(build),
        "request_id": build.request_id,
        "limits": {
            "wall_s": limits.build_wall_s,
            "cpu_s": limits.build_cpu_s,
            "memory_mb": limits.build_memory_mb,
            "disk_mb": limits.build_disk_mb,
            "file_mb": limits.build_file_mb,
        },
    }


def _renewed(renewal: Renewal) -> dict[str, Any]:
    return {"lease_s": settings.CONFIG.timings.build_lease_s, "cancel": renewal.cancel}


def _result(body: dict[str, Any]) -> BuildResult:
    package, error = body["package"] or {}, body["error"] or {}
    if body["outcome"] == "succeeded" and not package:
        raise _refused("/package", "A build that succeeded has a package.")
    return BuildResult(
        outcome=body["outcome"],
        builder=body["builder"] or "",
        package_sha256=package.get("sha256", ""),
        package_size=package.get("size", 0),
        process_types=body["process_types"],
        error_code=error.get("code", ""),
        error_detail=error.get("detail", ""),
        image=body["image"],
        steps=_plain(body["steps"]),
    )


def _plain(steps: list[Any]) -> list[dict[str, Any]]:
    return [dict(step) for step in steps]


def _lines(lines: list[Any]) -> list[tuple[int, int, str]]:
    try:
        return [(int(at), min(max(int(stream), 0), 2), str(text)) for at, stream, text in lines]
    except (TypeError, ValueError):
        raise _refused("/lines", "Each line is [at_us, stream, text].") from None


def _refused(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput(errors=[FieldError(pointer, "invalid", detail)])

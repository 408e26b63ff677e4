"""The shapes of builds and releases for the OpenAPI document. Nothing here reads or writes data."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, inline_serializer
from rest_framework import serializers

from releases.states import BuildStatus

ARCHIVE_TYPES = ("application/gzip", "application/zip", "application/x-tar")


class StoredBytes(serializers.Serializer[Any]):
    sha256 = serializers.CharField()
    size = serializers.IntegerField()


class BuildError(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class BuildStep(serializers.Serializer[Any]):
    name = serializers.CharField()
    status = serializers.CharField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class BuildShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    app_id = serializers.IntegerField()
    version = serializers.CharField()
    status = serializers.ChoiceField([s for s in BuildStatus.values if s != BuildStatus.LOST])
    attempt = serializers.IntegerField()
    builder = serializers.CharField(allow_null=True)
    image = serializers.CharField(allow_null=True)
    artifact = StoredBytes()
    deploy = serializers.BooleanField()
    cancel_requested = serializers.BooleanField()
    error = BuildError(allow_null=True)
    steps = BuildStep(many=True)
    release_id = serializers.IntegerField(allow_null=True)
    release_number = serializers.IntegerField(allow_null=True)
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    revision = serializers.IntegerField()
    links = serializers.DictField(child=serializers.CharField())


class ReleaseShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    app_id = serializers.IntegerField()
    number = serializers.IntegerField()
    version = serializers.CharField()
    desired = serializers.BooleanField()
    build_id = serializers.IntegerField()
    artifact = StoredBytes()
    package = StoredBytes()
    image = serializers.CharField(allow_null=True)
    process_types = serializers.DictField(child=serializers.CharField())
    config = serializers.IntegerField()
    reason = serializers.CharField()
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    revision = serializers.IntegerField()
    links = serializers.DictField(child=serializers.CharField())


class BuildLogLineShape(serializers.Serializer[Any]):
    cursor = serializers.CharField()
    at = serializers.DateTimeField()
    attempt = serializers.IntegerField()
    stream = serializers.ChoiceField(["stdout", "stderr", "system"])
    line = serializers.CharField()


def page_of(name: str, item: type[serializers.Serializer[Any]]) -> Any:
    """A list's body."""
    fields = {
        "items": item(many=True),
        "next": serializers.CharField(allow_null=True),
        "previous": serializers.CharField(allow_null=True),
    }
    return inline_serializer(name, fields)


LIMIT = OpenApiParameter("limit", int, description="items of a page, 1 to 500")
CURSOR = OpenApiParameter("cursor", str, description="from `next` or `previous` of an answer")
TAIL = OpenApiParameter("tail", int, description="the last n lines, ascending")
STATUS = OpenApiParameter("status", str, description="only builds of this status")
VERSION = OpenApiParameter("version", str, description="only those of this version")
DEPLOY = OpenApiParameter("deploy", bool, description="deploy when built (default true)")
DIGEST = OpenApiParameter("Content-Digest", str, OpenApiParameter.HEADER, description="sha-256=:<base64>:, verified")
KEY = OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER, description="replays the first answer for 24 h")
UPLOAD_BODY: dict[Any, Any] = {
    **dict.fromkeys(ARCHIVE_TYPES, OpenApiTypes.BINARY),
    "application/json": {"type": "object", "properties": {"image": {"type": "string"}}, "required": ["image"]},
    "multipart/form-data": {
        "type": "object",
        "properties": {"file": {"type": "string", "format": "binary"}, "deploy": {"type": "boolean"}},
        "required": ["file"],
    },
}

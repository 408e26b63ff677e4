"""JSON in and out, by orjson; one format whichever way a row was read (times in UTC with `Z`)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import IO, Any

import orjson
from django.http import HttpResponse
from rest_framework.metadata import BaseMetadata
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from omni.kernel.clock import rfc3339
from omni.kernel.errors import Malformed

_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME


def _default(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return rfc3339(value)
    return str(value)


def dumps(data: Any) -> bytes:
    return orjson.dumps(data, default=_default, option=_OPTIONS)


class OrjsonRenderer(BaseRenderer):
    media_type = "application/json"
    format = "json"
    charset = None
    render_style = "binary"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if data is None:
            return b""
        return data if isinstance(data, bytes) else dumps(data)


class Rendered(Response):
    """A Response whose body is JSON already: without what DRF and Django's templates prepare for rendering it."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        HttpResponse.__init__(self, body, status=status, content_type="application/json", headers=headers)
        self.data = body
        if not body:
            del self.headers["Content-Type"]
        for name in ("_request", "context_data", "template_name", "using"):
            self.__dict__[name] = None
        self._post_render_callbacks: list[Any] = []


class OrjsonParser(BaseParser):
    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        return self.loads(stream.read())

    def loads(self, raw: bytes) -> Any:
        """A body's value; nothing is an object without fields. Raises Malformed."""
        if not raw:
            return {}
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise Malformed(
                f"The body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
            ) from error


class JsonOnly(BaseContentNegotiation):
    """This API speaks JSON; what Accept says is for event streams, which the front serves."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        content_type = (request.content_type or "").partition(";")[0].strip().lower()
        if content_type in ("application/json", "application/merge-patch+json", ""):
            return parsers[0]
        for parser in parsers[1:]:
            if parser.media_type == content_type:
                return parser
        return None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class NoMetadata(BaseMetadata):
    """OPTIONS answers what `Allow` says; everything else about a route is in `/schema`."""

    def determine_metadata(self, request: Request, view: Any) -> None:
        return None

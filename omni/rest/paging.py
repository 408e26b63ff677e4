"""Keyset paging: page 10,000 costs what page 1 costs. Newest first by id; no counts, no offsets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from rest_framework.request import Request
from rest_framework.response import Response

from omni.kernel.errors import FieldError, InvalidInput

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
# Of a followed page: what it is a page of, as `kind id rest`. Followers with the same value see the same.
STREAM = "Omni-Stream"


def limit_of(request: Request) -> int:
    return int_parameter(request, "limit", default=DEFAULT_LIMIT, low=1, high=MAX_LIMIT)


def int_parameter(request: Request, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number of the query, within bounds. Raises InvalidInput."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not low <= int(text) <= high:
        raise refused(name, f"A whole number from {low} to {high} is wanted.")
    return int(text)


def flag_parameter(request: Request, name: str, default: bool) -> bool:
    text = request.query_params.get(name, "").lower()
    if text in ("", "true", "false", "1", "0"):
        return default if text == "" else text in ("true", "1")
    raise refused(name, "true or false is wanted.")


def refused(name: str, detail: str, code: str = "invalid") -> InvalidInput:
    return InvalidInput(f"The query parameter {name} is not valid.", errors=[FieldError(f"?{name}", code, detail)])


def encode_cursor(direction: str, key: str) -> str:
    return base64.urlsafe_b64encode(f"{direction}{key}".encode()).decode().rstrip("=")


def decode_cursor(text: str) -> tuple[str, str]:
    """(direction, key); direction `<` is older, `>` newer. Raises InvalidInput."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raw = ""
    if raw[:1] not in ("<", ">") or not raw[1:]:
        raise refused("cursor", "Take it from `next` or `previous` of an answer.")
    return raw[0], raw[1:]


def page(
    request: Request,
    queryset: Any,
    show: Callable[[list[Any]], list[dict[str, Any]]],
    *,
    key: str = "id",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One page of `queryset`, newest first by the integer column `key`; `show` turns its rows into items."""
    limit = limit_of(request)
    cursor = request.query_params.get("cursor")
    direction, position = decode_cursor(cursor) if cursor else ("<", "")
    if position and not (position.isascii() and position.isdigit() and len(position) < 19):
        raise refused("cursor", "Take it from `next` or `previous` of an answer.")
    if position:
        queryset = queryset.filter(**{f"{key}__{'lt' if direction == '<' else 'gt'}": int(position)})
    rows = list(queryset.order_by(f"-{key}" if direction == "<" else key)[: limit + 1])
    more, rows = len(rows) > limit, rows[:limit]
    if direction == ">":
        rows.reverse()
    older, newer = (more, bool(position)) if direction == "<" else (True, more)
    ends = [_position(row, key) for row in (rows[0], rows[-1])] if rows else []

    return answer(
        request,
        show(rows),
        next_cursor=encode_cursor("<", ends[1]) if older and ends else None,
        previous_cursor=encode_cursor(">", ends[0]) if newer and ends else None,
        headers=headers,
    )


def _position(row: Any, key: str) -> str:
    return str(row[key] if isinstance(row, dict) else getattr(row, key))


def answer(
    request: Request,
    items: list[dict[str, Any]],
    *,
    next_cursor: str | None,
    previous_cursor: str | None,
    headers: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
) -> Response:
    """A list's body with its links, as references relative to the node that was asked; `without` these parameters."""
    links = {
        "next": _link(request, next_cursor, without),
        "previous": _link(request, previous_cursor, without),
    }
    header = ", ".join(f'<{url}>; rel="{"prev" if name == "previous" else name}"' for name, url in links.items() if url)
    all_headers = dict(headers or {})
    if header:
        all_headers["Link"] = header
    return Response({"items": items, **links}, headers=all_headers)


def _link(request: Request, cursor: str | None, without: tuple[str, ...]) -> str | None:
    if cursor is None:
        return None
    dropped = {"cursor", "wait", "index", *without}
    query = {name: value for name, value in request.query_params.items() if name not in dropped}
    return f"{request.path}?{urlencode({**query, 'cursor': cursor})}"

"""From the query string of a log request to lines: `stream, q, since, until, tail, limit, cursor`.

Owns the parameters and the links of the answer. Which lines those are is `telemetry.logs`' business.
"""

from __future__ import annotations

import datetime as dt

from rest_framework.request import Request
from rest_framework.response import Response

from instances.telemetry import logs
from instances.telemetry.logs import Position, Wanted
from omni.kernel import clock
from omni.rest.paging import MAX_LIMIT, answer, int_parameter, limit_of, refused

_BACK = "b"  # a cursor that reads towards the past


def page(request: Request, app_id: int, instance_id: int | None) -> Response:
    """Oldest first; `tail=n`: the last n. A line's own `cursor` is where reading goes on after it."""
    tail = "tail" in request.query_params
    count = int_parameter(request, "tail", default=0, low=1, high=MAX_LIMIT) if tail else limit_of(request)
    after, before = _cursors(request.query_params.get("cursor"))
    wanted = Wanted(
        app_id=app_id,
        instance_id=instance_id,
        limit=count,
        stream=_stream(request.query_params.get("stream")),
        text=request.query_params.get("q", "")[:1000],
        since_us=_moment(request, "since"),
        until_us=_moment(request, "until"),
        after=after,
        before=before,
        tail=tail and after is None and before is None,
    )
    found = logs.read(wanted)
    items = [logs.show(row) for row in found.rows]
    backwards = wanted.tail or before is not None
    first, last = (items[0]["cursor"], items[-1]["cursor"]) if items else (None, None)
    stopped = str(found.stopped_at) if found.stopped_at else None
    if backwards:
        older, newer = (stopped or first) if found.more else None, last if before is not None else None
    else:
        older, newer = first if after is not None else None, (stopped or last) if found.more else None
    return answer(request, items, next_cursor=newer, previous_cursor=_BACK + older if older else None)


def _cursors(text: str | None) -> tuple[Position | None, Position | None]:
    if not text:
        return None, None
    return (None, logs.parse(text[1:])) if text.startswith(_BACK) else (logs.parse(text), None)


def _stream(text: str | None) -> int | None:
    if text in (None, ""):
        return None
    if text not in ("stdout", "stderr"):
        raise refused("stream", "stdout or stderr is wanted.")
    return 1 if text == "stderr" else 0


def _moment(request: Request, name: str) -> int | None:
    """RFC 3339, or seconds before now such as `600s`; in microseconds."""
    text = request.query_params.get(name)
    if not text:
        return None
    if text.endswith("s") and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 12:
        return clock.to_us(clock.now()) - int(text[:-1]) * 1_000_000
    try:
        moment = dt.datetime.fromisoformat(text.replace(" ", "+").replace("Z", "+00:00"))
        return clock.to_us(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))
    except (ValueError, OverflowError):
        raise refused(name, "A time such as 2026-11-22T15:00:00Z, or seconds ago such as 600s, is wanted.") from None

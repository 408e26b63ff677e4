"""From the query string of a log request to lines: `stream, q, since, until, tail, limit, cursor`.

Owns the parameters and the links of the answer. Which lines those are is `telemetry.logs`' business.
"""

from __future__ import annotations

import datetime as dt

import orjson
from rest_framework.request import Request
from rest_framework.response import Response

from instances.telemetry import arrivals, logs
from instances.telemetry.arrivals import Place
from instances.telemetry.logs import Position, Wanted
from omni.kernel import clock
from omni.rest.paging import MAX_LIMIT, STREAM, answer, flag_parameter, int_parameter, limit_of, refused

_BACK = "b"  # a cursor that reads towards the past


def page(request: Request, app_id: int, instance_id: int | None) -> Response:
    """Oldest first; `tail=n`: the last n. A line's own `cursor` is where reading goes on after it.

    With `follow` (the front's streams) the app's lines come in the order of their arrival, and the answer says up to
    where it looked (`seen`) and which other followers see the same (`Omni-Stream`).
    """
    follow = flag_parameter(request, "follow", False)
    place = arrivals.parse(request.query_params.get("cursor", "")) if instance_id is None else None
    wanted = _wanted(request, app_id, instance_id, placed=place is not None)
    by_arrival = instance_id is None and wanted.after is None and wanted.before is None
    if place is not None or (follow and by_arrival):
        return _arrived(request, wanted, place, follow)
    newest = _newest(wanted) if follow and wanted.tail else None
    found = logs.read(wanted)
    items = [logs.show(row) for row in found.rows]
    backwards = wanted.tail or wanted.before is not None
    first, last = (items[0]["cursor"], items[-1]["cursor"]) if items else (None, None)
    stopped = str(found.stopped_at) if found.stopped_at else None
    if backwards:
        older, newer = (stopped or first) if found.more else None, last if wanted.before is not None else None
    else:
        older, newer = first if wanted.after is not None else None, (stopped or last) if found.more else None
    shown = answer(request, items, next_cursor=newer, previous_cursor=_BACK + older if older else None)
    if follow and wanted.before is None:
        # backwards the search began at the newest line, and what came while it looked is shown already
        ends = [newest, logs.parse(last) if last else None] if backwards else [found.reached or wanted.after]
        _mark(shown, wanted, max((end for end in ends if end is not None), default=None))
        if instance_id is None:
            del shown.headers[STREAM]  # by time two followers of an app may miss different lines
    return shown


def _wanted(request: Request, app_id: int, instance_id: int | None, *, placed: bool) -> Wanted:
    tail = "tail" in request.query_params
    count = int_parameter(request, "tail", default=0, low=1, high=MAX_LIMIT) if tail else limit_of(request)
    after, before = (None, None) if placed else _cursors(request.query_params.get("cursor"))
    return Wanted(
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


def _arrived(request: Request, wanted: Wanted, place: Place | None, follow: bool) -> Response:
    """The app's lines in the order of their arrival."""
    if place is not None:
        found = arrivals.after(wanted, place)
    elif wanted.tail or wanted.since_us is None:
        found = arrivals.tail(wanted)
    else:
        found = arrivals.since(wanted)
    items = [{**logs.show(row), "cursor": str(at)} for at, row in found.rows]
    shown = answer(request, items, next_cursor=str(found.reached) if found.more else None, previous_cursor=None)
    if follow:
        _mark(shown, wanted, found.reached)
    return shown


def _newest(wanted: Wanted) -> Position | None:
    rows = logs.read(Wanted(wanted.app_id, wanted.instance_id, 1, tail=True)).rows
    return Position(*rows[-1][:3]) if rows else None


def _mark(shown: Response, wanted: Wanted, seen: object) -> None:
    """What a stream needs to go on, and to share its reading with others that see the same."""
    assert isinstance(shown.data, dict)  # noqa: S101
    shown.data["seen"] = str(seen) if seen is not None else None
    chosen = [wanted.instance_id, wanted.stream, wanted.until_us, wanted.text]
    shown.headers[STREAM] = f"logs {wanted.app_id} {orjson.dumps(chosen).hex()}"


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

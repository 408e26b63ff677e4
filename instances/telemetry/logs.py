"""Pages of log lines, oldest first: of one instance, or of all instances of an app merged by time.

Owns positions and the promise that a page at any depth costs what the first costs: every page starts at a key. Search
reads bounded portions and hands back where it stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import Error

from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.rest.paging import refused

SEARCH_PORTION = 20_000  # lines looked at by one statement
SEARCH_S = 1.5  # how long one request may search before it hands over a cursor
_POSITION = re.compile(r"(\d{1,18})\.(\d{1,18})\.(\d{1,18})")
_LAST = "SELECT line FROM instances_logline WHERE instance_id = %s ORDER BY seq DESC LIMIT %s"
_COLUMNS = "at_us, instance_id, seq, stream, line"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Of one line; its text is the line's `cursor`."""

    at_us: int
    instance_id: int
    seq: int

    def __str__(self) -> str:
        return f"{self.at_us}.{self.instance_id}.{self.seq}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: `instance_id` None merges the app's. `after`/`before` exclude the line itself."""

    app_id: int
    instance_id: int | None
    limit: int
    stream: int | None = None
    text: str = ""
    since_us: int | None = None
    until_us: int | None = None
    after: Position | None = None
    before: Position | None = None
    tail: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """`stopped_at` is where a search gave up for now; `more`: whether lines follow in the direction of reading.

    `reached`: the last line that was looked at, whether it was wanted or not.
    """

    rows: list[tuple[Any, ...]]
    more: bool
    stopped_at: Position | None = None
    reached: Position | None = None


def parse(text: str) -> Position:
    found = _POSITION.fullmatch(text)
    if found is None:
        raise refused("cursor", "Take it from a line, or from `next` or `previous` of an answer.")
    return Position(*(int(part) for part in found.groups()))


def show(row: Sequence[Any]) -> dict[str, Any]:
    at_us, instance_id, seq, stream, line = row
    return {
        "cursor": f"{at_us}.{instance_id}.{seq}",
        "at": clock.rfc3339(clock.from_us(at_us)),
        "instance_id": instance_id,
        "stream": "stderr" if stream else "stdout",
        "line": line,
    }


def last_lines(instance_id: int, count: int = 20) -> list[str]:
    """The end of an instance's log as it is stored, oldest first; nothing when telemetry does not answer."""
    try:
        rows = sql.select(_LAST, [instance_id, count])
    except Error:
        return []
    return [str(row[0])[:2000] for row in reversed(rows)]


def read(wanted: Wanted) -> Lines:
    backwards = wanted.tail or wanted.before is not None
    if wanted.text or wanted.stream is not None:
        found = _search(wanted, backwards)
    else:
        rows = _portion(wanted, backwards, wanted.limit + 1, None)
        rows, more = rows[: wanted.limit], len(rows) > wanted.limit
        found = Lines(rows, more, None, Position(*rows[-1][:3]) if rows else None)
    return Lines(found.rows[::-1], found.more, found.stopped_at) if backwards else found


def _search(wanted: Wanted, backwards: bool) -> Lines:
    """Portions of the log, filtered, until the page is full, the log is read, or the time is up."""
    deadline = time.monotonic() + SEARCH_S
    kept: list[tuple[Any, ...]] = []
    at: Position | None = None
    needle = wanted.text.casefold()
    while True:
        rows = _portion(wanted, backwards, SEARCH_PORTION, at)
        for row in rows:
            if (wanted.stream is None or row[3] == wanted.stream) and (not needle or needle in row[4].casefold()):
                kept.append(row)
                if len(kept) > wanted.limit:
                    return Lines(kept[: wanted.limit], True)
        at = Position(*rows[-1][:3]) if rows else at
        if len(rows) < SEARCH_PORTION:
            return Lines(kept, False, None, at)
        if time.monotonic() > deadline:
            return Lines(kept, True, at, at)


def _portion(wanted: Wanted, backwards: bool, count: int, at: Position | None) -> list[tuple[Any, ...]]:
    """`count` rows in the direction of reading, beyond `at` (or beyond the page's own start)."""
    start = at or (wanted.before if backwards else wanted.after)
    if wanted.instance_id is not None:
        return _of_instance(wanted, backwards, count, start)
    return _of_app(wanted, backwards, count, start)


def _of_instance(wanted: Wanted, backwards: bool, count: int, start: Position | None) -> list[tuple[Any, ...]]:
    """Clustered by (instance, sequence). Times become sequences first, by bisection."""
    where, params = ["instance_id = %s"], [wanted.instance_id]
    if start is not None:
        where.append("seq < %s" if backwards else "seq > %s")
        params.append(start.seq)
    assert wanted.instance_id is not None  # noqa: S101
    if wanted.since_us is not None:
        where.append("seq >= %s")
        params.append(first_seq_at(wanted.instance_id, wanted.since_us))
    if wanted.until_us is not None:
        where.append("seq < %s")
        params.append(first_seq_at(wanted.instance_id, wanted.until_us))
    order = "DESC" if backwards else "ASC"
    statement = (
        f"SELECT {_COLUMNS} FROM instances_logline WHERE {' AND '.join(where)} "  # noqa: S608
        f"ORDER BY instance_id {order}, seq {order} LIMIT %s"
    )
    return sql.select(statement, [*params, count])


def _of_app(wanted: Wanted, backwards: bool, count: int, start: Position | None) -> list[tuple[Any, ...]]:
    """By the index (app, time), which carries (instance, sequence) behind it.

    The rest of the page's first moment, then everything beyond it: as one condition MariaDB reads from the start.
    """
    found: list[tuple[Any, ...]] = []
    bounds: list[tuple[str, Any]] = []
    if wanted.since_us is not None:
        bounds.append(("at_us >= %s", wanted.since_us))
    if wanted.until_us is not None:
        bounds.append(("at_us < %s", wanted.until_us))
    if start is not None:
        sign = "<" if backwards else ">"
        same = [("at_us = %s", start.at_us), ("instance_id = %s", start.instance_id), (f"seq {sign} %s", start.seq)]
        found = _range(wanted, [*bounds, *same], backwards, count)
        same = [("at_us = %s", start.at_us), (f"instance_id {sign} %s", start.instance_id)]
        found += _range(wanted, [*bounds, *same], backwards, count - len(found))
        bounds.append((f"at_us {sign} %s", start.at_us))
    return found + _range(wanted, bounds, backwards, count - len(found))


def _range(wanted: Wanted, conditions: list[tuple[str, Any]], backwards: bool, count: int) -> list[tuple[Any, ...]]:
    if count <= 0:
        return []
    order = "DESC" if backwards else "ASC"
    where = " AND ".join([sql.only("app_id"), *(condition for condition, _ in conditions)])
    statement = (
        f"SELECT {_COLUMNS} FROM instances_logline WHERE {where} "  # noqa: S608
        f"ORDER BY app_id {order}, at_us {order}, instance_id {order}, seq {order} LIMIT %s"
    )
    return sql.select(statement, [wanted.app_id, *(value for _, value in conditions), count])


def first_seq_at(instance_id: int, at_us: int) -> int:
    """The lowest sequence whose line is not older than `at_us`. Lines of one instance ascend in time."""
    ends = [
        sql.select(f"SELECT {edge}(seq) FROM instances_logline WHERE instance_id = %s", [instance_id])[0][0]  # noqa: S608
        for edge in ("MIN", "MAX")  # both in one statement are a scan on SQLite
    ]
    if ends[0] is None:
        return 0
    low, high = int(ends[0]), int(ends[1]) + 1
    while low < high:
        middle = (low + high) // 2
        row = sql.select(
            "SELECT seq, at_us FROM instances_logline WHERE instance_id = %s AND seq >= %s "
            "ORDER BY instance_id, seq LIMIT 1",
            [instance_id, middle],
        )
        if not row or row[0][1] >= at_us:
            high = middle
        else:
            low = int(row[0][0]) + 1
    return low

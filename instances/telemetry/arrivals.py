"""The log of an app in the order in which its lines arrived: what followers read.

By time alone a follower would miss lines: those of a node that reports late belong before what was read already. So
each stored batch gets the app's next number, in the transaction that stores its lines; the row that hands out the
numbers stays locked until the commit, so that they become visible in their order, on every member, whoever leads.

Owns the numbering and the reading by it. A place is (number, sequence within the instance); its text is a line's
cursor in a followed log: `a<number>.<sequence>`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instances.telemetry import statements as sql
from instances.telemetry.logs import SEARCH_S, Wanted
from omni.kernel import clock
from omni.kernel.errors import Gone

_PLACE = re.compile(r"a(\d{1,18})\.(\d{1,18})")
_AT_ONCE = 100  # batches of one statement
_SEARCHED = 5_000  # lines that a search looks at in one go
_SKEW_US = 300_000_000  # a batch may be stored earlier than its lines' times say, by clocks that differ
_MORE = "UPDATE instances_logcounter SET last = last + %s WHERE app_id = %s"
_NUMBERS = "SELECT last FROM instances_logcounter WHERE app_id = %s"
_BATCHES = (
    f"SELECT arrival, instance_id, first_seq, last_seq FROM instances_logarrival WHERE {sql.only('app_id')} "  # noqa: S608
    "AND arrival {} %s ORDER BY app_id {}, arrival {} LIMIT %s"
)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Behind the line `seq` of the batch `arrival`."""

    arrival: int
    seq: int

    def __str__(self) -> str:
        return f"a{self.arrival}.{self.seq}"


@dataclass(frozen=True, slots=True)
class Found:
    """Lines with their places, in order; `reached`: everything up to there has been looked at; `more`: not all was."""

    rows: list[tuple[Place, tuple[Any, ...]]]
    reached: Place
    more: bool


@dataclass(frozen=True, slots=True)
class _Range:
    arrival: int
    instance_id: int
    first: int
    last: int


def number(app_of: Mapping[int, int], stored: Sequence[tuple[int, int, int]]) -> None:
    """Number these batches (instance, first, last). Call it last in the transaction that stored their lines."""
    by_app: dict[int, list[tuple[int, int, int]]] = {}
    for batch in stored:
        by_app.setdefault(app_of[batch[0]], []).append(batch)
    now_us, rows = clock.to_us(clock.now()), []
    for app_id in sorted(by_app):
        batches = by_app[app_id]
        if not sql.execute(
            "UPDATE instances_logcounter SET last = last + %s WHERE app_id = %s", [len(batches), app_id]
        ):
            sql.insert("instances_logcounter", ("app_id", "last"), [(app_id, 0)], again="ignore")
            sql.execute("UPDATE instances_logcounter SET last = last + %s WHERE app_id = %s", [len(batches), app_id])
        first = int(sql.select(_NUMBERS, [app_id])[0][0]) - len(batches) + 1
        rows += [(app_id, first + i, *batch, now_us) for i, batch in enumerate(batches)]
    columns = ("app_id", "arrival", "instance_id", "first_seq", "last_seq", "at_us")
    sql.insert("instances_logarrival", columns, rows, again="error")


def parse(text: str) -> Place | None:
    """None for a cursor of another kind."""
    found = _PLACE.fullmatch(text)
    return Place(int(found[1]), int(found[2])) if found is not None else None


def numbers_of(app_ids: Sequence[int]) -> dict[int, int]:
    """The newest number of each of these apps: a cheap way to see that something arrived."""
    if not app_ids:
        return {}
    query = f"SELECT app_id, last FROM instances_logcounter WHERE app_id IN ({sql.marks(app_ids)})"  # noqa: S608
    return {int(app_id): int(last) for app_id, last in sql.select(query, list(app_ids))}


def after(wanted: Wanted, place: Place) -> Found:
    """What arrived behind `place`. Raises Gone when retention has removed what follows it."""
    _check_kept(wanted.app_id, place)
    deadline = time.monotonic() + SEARCH_S
    kept: list[tuple[Place, tuple[Any, ...]]] = []
    reached = place
    while True:
        need = wanted.limit - len(kept) if _takes_all(wanted) else _SEARCHED
        ranges = _ranges_after(wanted.app_id, reached, need)
        for at, row in _lines(ranges):
            if _matches(wanted, row):
                kept.append((at, row))
                if len(kept) == wanted.limit:
                    return Found(kept, at, True)
        if not ranges:
            return Found(kept, reached, False)
        reached = Place(ranges[-1].arrival, ranges[-1].last)
        if time.monotonic() > deadline:
            return Found(kept, reached, True)


def tail(wanted: Wanted) -> Found:
    """The last `limit` lines in the order of their arrival; following goes on at `reached`."""
    newest = sql.select(_NUMBERS, [wanted.app_id])
    end = Place(int(newest[0][0]) if newest else 0, 10**17)
    deadline, below = time.monotonic() + SEARCH_S, end.arrival + 1
    kept: list[tuple[Place, tuple[Any, ...]]] = []
    while below > 1 and len(kept) < wanted.limit and time.monotonic() < deadline:
        need = wanted.limit - len(kept) if _takes_all(wanted) else _SEARCHED
        ranges = _ranges_before(wanted.app_id, below, need)
        if not ranges:
            break
        found = [(at, row) for at, row in _lines(ranges) if _matches(wanted, row)]
        kept = (found + kept)[-wanted.limit :]
        below = ranges[0].arrival
        if wanted.since_us is not None and found and all(row[0] < wanted.since_us for _, row in found):
            break
    return Found(kept, end, False)


def since(wanted: Wanted) -> Found:
    """From the time `since_us` on (its lines only, in the order of their arrival)."""
    assert wanted.since_us is not None  # noqa: S101
    rows = sql.select(
        "SELECT MAX(arrival) FROM instances_logarrival WHERE app_id = %s AND at_us < %s",
        [wanted.app_id, wanted.since_us - _SKEW_US],
    )
    oldest = sql.select("SELECT MIN(arrival) FROM instances_logarrival WHERE app_id = %s", [wanted.app_id])[0][0]
    start = int(rows[0][0]) if rows[0][0] is not None else int(oldest or 1) - 1
    return after(wanted, Place(start, 10**17))


def _check_kept(app_id: int, place: Place) -> None:
    oldest = sql.select("SELECT MIN(arrival) FROM instances_logarrival WHERE app_id = %s", [app_id])[0][0]
    if oldest is not None and place.arrival and int(oldest) > place.arrival + 1:
        raise Gone(
            f"The log after {place} is not kept any more; the oldest kept begins after a{int(oldest) - 1}.0.",
            next=f"GET /app/{app_id}/logs?tail=500",
        )


def _takes_all(wanted: Wanted) -> bool:
    return not wanted.text and wanted.stream is None and wanted.since_us is None and wanted.until_us is None


def _matches(wanted: Wanted, row: tuple[Any, ...]) -> bool:
    at_us, _, _, stream, line = row
    if wanted.stream is not None and stream != wanted.stream:
        return False
    if wanted.since_us is not None and at_us < wanted.since_us:
        return False
    if wanted.until_us is not None and at_us >= wanted.until_us:
        return False
    return not wanted.text or wanted.text.casefold() in line.casefold()


def _ranges_after(app_id: int, place: Place, need: int) -> list[_Range]:
    """Batches behind `place` until they hold `need` lines; the first and the last may be parts of batches."""
    found: list[_Range] = []
    rows = sql.select(_BATCHES.format(">=", "ASC", "ASC"), [app_id, place.arrival, _AT_ONCE])
    for arrival, instance_id, first, last in rows:
        start = max(int(first), place.seq + 1) if arrival == place.arrival else int(first)
        if start > last:
            continue
        end = min(int(last), start + need - 1)
        found.append(_Range(int(arrival), int(instance_id), start, end))
        need -= end - start + 1
        if need <= 0:
            break
    return found


def _ranges_before(app_id: int, arrival: int, need: int) -> list[_Range]:
    """The newest batches below `arrival` until they hold `need` lines, oldest first; whole batches but for the end."""
    found: list[_Range] = []
    for number_, instance_id, first, last in sql.select(
        _BATCHES.format("<", "DESC", "DESC"), [app_id, arrival, _AT_ONCE]
    ):
        start = max(int(first), int(last) - max(need, _SEARCHED) + 1)
        found.append(_Range(int(number_), int(instance_id), start, int(last)))
        need -= int(last) - start + 1
        if need <= 0:
            break
    return found[::-1]


def _lines(ranges: Sequence[_Range]) -> list[tuple[Place, tuple[Any, ...]]]:
    """The lines of these ranges in the order of their places; what retention removed is not there."""
    if not ranges:
        return []
    where = " OR ".join(["(instance_id = %s AND seq >= %s AND seq <= %s)"] * len(ranges))
    params = [value for one in ranges for value in (one.instance_id, one.first, one.last)]
    rows = sql.select(f"SELECT at_us, instance_id, seq, stream, line FROM instances_logline WHERE {where}", params)  # noqa: S608
    by_instance: dict[int, list[_Range]] = {}
    for one in ranges:
        by_instance.setdefault(one.instance_id, []).append(one)
    placed = []
    for row in rows:
        for one in by_instance[row[1]]:
            if one.first <= row[2] <= one.last:
                placed.append((Place(one.arrival, row[2]), row))
                break
    return sorted(placed, key=lambda pair: pair[0])

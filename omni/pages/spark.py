"""The small line beside an instance: its processor time over the last quarter of an hour, as points of an SVG line.

Owns the one statement that reads it for a whole table.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from instances.telemetry import statements as sql
from omni.kernel import clock

WINDOW_S, STEP_S = 900, 30
WIDTH, HEIGHT = 90, 22
_MOST = 100  # instances


def courses(ids: Sequence[int], now: dt.datetime) -> dict[int, str]:
    """By instance: `x,y x,y …` for a polyline. Without two measured points there is no line."""
    ids = list(ids)[:_MOST]
    if not ids:
        return {}
    end = clock.to_us(now)
    statement = (
        "SELECT instance_id, at_us - (at_us %% %s) AS bucket, AVG(cpu_percent) FROM instances_sample "  # noqa: S608
        f"WHERE instance_id IN ({sql.marks(ids)}) AND step_s = 5 AND at_us >= %s AND cpu_percent IS NOT NULL "
        "GROUP BY instance_id, bucket ORDER BY instance_id, bucket"
    )
    rows = sql.select(statement, [STEP_S * 1_000_000, *ids, end - WINDOW_S * 1_000_000])
    found: dict[int, list[tuple[int, float]]] = {}
    for instance_id, bucket, value in rows:
        found.setdefault(int(instance_id), []).append((int(bucket), float(value)))
    return {key: line(points, end) for key, points in found.items() if len(points) > 1}


def line(points: Sequence[tuple[int, float]], end_us: int) -> str:
    """Pure. The top is the largest value, at least 10 % of a core, so that idling is flat."""
    top = max(10.0, *(value for _, value in points))
    start = end_us - WINDOW_S * 1_000_000
    return " ".join(
        f"{(at - start) / (WINDOW_S * 1_000_000) * WIDTH:.1f},{HEIGHT - 2 - value / top * (HEIGHT - 4):.1f}"
        for at, value in points
    )

"""What the new and the old release of one app answered in the same period, from the ingresses' counts.

Owns the question only; what the figures mean is `rollout.judgement`'s.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from instances.models import Instance
from instances.plan.model import Compared, Figures
from instances.rollout.traffic import Split
from instances.telemetry import quantiles
from instances.telemetry import statements as sql
from instances.telemetry.figures import histogram_of
from omni.kernel import clock

_COUNTS = (
    f"SELECT instance_id, requests, failed, histogram FROM instances_requestsample "  # noqa: S608
    f"WHERE {sql.only('app_id')} AND at_us > %s AND step_s = 5"
)


def sides(app_id: int, release_id: int, floor: int, since: dt.datetime) -> Compared:
    """Requests that ended since then, by the side of the instance that answered. Those that none answered (instance 0)
    are nobody's."""
    rows = sql.select(_COUNTS, [app_id, clock.to_us(since)])
    split = Split(release_id, floor, 0)
    found = Instance.objects.filter(app_id=app_id, id__in={row[0] for row in rows})
    new = {
        instance_id: split.brings(of_release, deployment_id)
        for instance_id, of_release, deployment_id in found.values_list("id", "release_id", "deployment_id")
    }
    return Compared(
        new=_sum([row for row in rows if new.get(row[0]) is True]),
        old=_sum([row for row in rows if new.get(row[0]) is False]),
    )


def shown(compared: Compared) -> dict[str, Any]:
    """As a deployment shows it."""
    return {side: _figures(getattr(compared, side)) for side in ("new", "old")}


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "failed": figures.failed,
        "error_rate": round(figures.failed / figures.requests, 5) if figures.requests else None,
        "p95_ms": quantiles.quantile(figures.histogram, 0.95),
    }


def _sum(rows: list[tuple[Any, ...]]) -> Figures:
    histogram = quantiles.total(histogram_of(row[3]) for row in rows)
    return Figures(sum(int(row[1]) for row in rows), sum(int(row[2]) for row in rows), tuple(histogram))

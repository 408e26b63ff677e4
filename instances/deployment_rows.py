"""An app's newest deployments by one statement made by hand, for `GET /app/<app>/info`, which is asked for often."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import orjson
from django.db import connection

from apps.strategy import STEPWISE
from instances.instance_list import moment
from instances.plan.phases import SWITCHED
from instances.states import ACTIVE_DEPLOYMENT, DeploymentStatus
from omni.kernel.clock import rfc3339

RECENT = 20
PHASES = ("release_task_id", "first", "paused_at", "baking_since", "promoted_at", "new_percent", "warm_until")
_TIMES = ("paused_at", "baking_since", "promoted_at", "warm_until", "finished_at")
_NAMES = (
    "id", "app_id", "kind", "status", "version", "release", "previous_version", "previous_release", "instances",
    "strategy", "reason", "error_code", "error_detail", "created_by", "created_at", "progress_at", "finished_at",
    "revision", "release_task_id", "first", "paused_at", "baking_since", "promoted_at", "new_percent", "warm_until",
    "release_id", "previous_id",
)  # fmt: skip
_SELECT = (
    "SELECT d.id, d.app_id, d.kind, d.status, r.version, r.number, p.version, p.number, d.desired_instances, "
    "d.strategy, d.reason, d.error_code, d.error_detail, d.created_by, d.created_at, d.progress_at, d.finished_at, "
    "d.revision, d.release_task_id, d.first, d.paused_at, d.baking_since, d.promoted_at, d.new_percent, d.warm_until, "
    "d.release_id, d.previous_release_id FROM instances_deployment d "
    "LEFT JOIN releases_release r ON r.id = d.release_id LEFT JOIN releases_release p ON p.id = d.previous_release_id "
    "WHERE d.app_id = %s ORDER BY d.id DESC LIMIT %s"
)


def recent(app_id: int) -> list[dict[str, Any]]:
    """Newest first, at most `RECENT`."""
    with connection.cursor() as cursor:
        cursor.execute(_SELECT, [app_id, RECENT])
        return [dict(zip(_NAMES, row, strict=True)) for row in cursor.fetchall()]


def settled(rows: list[dict[str, Any]]) -> list[tuple[int, int, str, Any]]:
    """(release id, number, version, when) of those that reached an end."""
    found = []
    for row in rows:
        if row["status"] == DeploymentStatus.SUCCEEDED and row["release_id"] is not None:
            found.append((row["release_id"], row["release"], row["version"], moment(row["finished_at"])))
        elif row["status"] == DeploymentStatus.REVERTED and row["previous_id"] is not None:
            found.append((row["previous_id"], row["previous_release"], row["previous_version"],
                          moment(row["finished_at"])))  # fmt: skip
    return found


def show(row: dict[str, Any]) -> dict[str, Any]:
    """The shape of `queries.show_deployment`, without steps and evidence."""
    stored = row["strategy"]
    strategy = orjson.loads(stored) if isinstance(stored, (str, bytes)) else stored
    times = {name: moment(row[name]) for name in _TIMES}
    return {
        **{name: row[name] for name in _NAMES[:9]},
        "strategy": strategy,
        "reason": row["reason"],
        "error": {"code": row["error_code"], "detail": row["error_detail"]} if row["error_code"] else None,
        "created_by": row["created_by"],
        "release_task_id": row["release_task_id"],
        **phases(row["status"], strategy, {**row, **times}),
        "created_at": rfc3339(moment(row["created_at"])),
        "progress_at": rfc3339(moment(row["progress_at"])),
        "finished_at": rfc3339(times["finished_at"]),
        "revision": row["revision"],
        "links": links(row["app_id"], row["id"]),
    }


def links(app_id: int, deployment_id: int) -> dict[str, str]:
    base = f"/app/{app_id}/deployments/{deployment_id}"
    verbs = {verb: f"{base}/{verb}" for verb in ("cancel", "pause", "resume", "promote")}
    return {"self": base, **verbs, "app": f"/app/{app_id}/info"}


def phases(status: str, strategy: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """How far it is, and since when; `row` has the columns of `PHASES` and `finished_at`."""
    watched = status == DeploymentStatus.SUCCEEDED and row["finished_at"] is not None
    until = row["finished_at"] + dt.timedelta(seconds=strategy.get("watch_s") or 0) if watched else None
    return {
        "phase": phase_of(status, strategy, row),
        "carries_on": row["first"] or None,
        "paused_at": rfc3339(row["paused_at"]),
        "baking_since": rfc3339(row["baking_since"]),
        "promoted_at": rfc3339(row["promoted_at"]),
        "percent_to_new": row["new_percent"],
        "warm_until": rfc3339(row["warm_until"]),
        "watched_until": rfc3339(until),
    }


def phase_of(status: str, strategy: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """None once it is over. The rules stand in order; see docs/deployments.md."""
    switched = row["new_percent"] == SWITCHED
    if status not in ACTIVE_DEPLOYMENT:
        return "warm" if switched and status == DeploymentStatus.SUCCEEDED else None
    if status == DeploymentStatus.PENDING and row["release_task_id"] is not None:
        return "preparing"
    if status != DeploymentStatus.ROLLING:
        return status
    if row["paused_at"] is not None:
        return "paused"
    if strategy.get("type") not in STEPWISE or (row["promoted_at"] is not None and not switched):
        return "rolling" if strategy.get("type") != "blue_green" else "switching"
    if switched:
        return "switched"
    if row["baking_since"] is None:
        return "starting"
    return "awaiting_promotion" if strategy.get("promote") == "manual" else "baking"

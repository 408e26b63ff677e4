"""An app's newest deployments by one statement made by hand, for `GET /app/<app>/info`, which is asked for often."""

from __future__ import annotations

from typing import Any

import orjson
from django.db import connection

from instances.instance_list import moment
from instances.states import DeploymentStatus
from omni.kernel.clock import rfc3339

RECENT = 20
_NAMES = (
    "id", "app_id", "kind", "status", "version", "release", "previous_version", "previous_release", "instances",
    "strategy", "reason", "error_code", "error_detail", "created_by", "created_at", "progress_at", "finished_at",
    "revision", "release_id", "previous_id",
)  # fmt: skip
_SELECT = (
    "SELECT d.id, d.app_id, d.kind, d.status, r.version, r.number, p.version, p.number, d.desired_instances, "
    "d.strategy, d.reason, d.error_code, d.error_detail, d.created_by, d.created_at, d.progress_at, d.finished_at, "
    "d.revision, d.release_id, d.previous_release_id FROM instances_deployment d "
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
    base = f"/app/{row['app_id']}/deployments/{row['id']}"
    strategy = row["strategy"]
    shown = {name: row[name] for name in _NAMES[:9]}
    return {
        **shown,
        "strategy": orjson.loads(strategy) if isinstance(strategy, (str, bytes)) else strategy,
        "reason": row["reason"],
        "error": {"code": row["error_code"], "detail": row["error_detail"]} if row["error_code"] else None,
        "created_by": row["created_by"],
        "created_at": rfc3339(moment(row["created_at"])),
        "progress_at": rfc3339(moment(row["progress_at"])),
        "finished_at": rfc3339(moment(row["finished_at"])),
        "revision": row["revision"],
        "links": {"self": base, "cancel": f"{base}/cancel", "app": f"/app/{row['app_id']}/info"},
    }

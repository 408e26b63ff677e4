"""What is kept of an instance's course: bounded history, and the evidence when a deployment failed by it. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Any

from omni.kernel.clock import rfc3339

HISTORY_KEPT = 50


def entry(at: dt.datetime, status: str, health: str, detail: str = "", restarts: int = 0) -> dict[str, Any]:
    return {"at": rfc3339(at), "status": status, "health": health, "restarts": restarts, "detail": detail[:300]}


def appended(
    history: list[dict[str, Any]], at: dt.datetime, status: str, health: str, detail: str = "", restarts: int = 0
) -> list[dict[str, Any]]:
    """The history with one more entry, the oldest dropped."""
    return [*history, entry(at, status, health, detail, restarts)][-HISTORY_KEPT:]


def of_instance(row: Any, log: list[str]) -> dict[str, Any]:
    """Why this instance failed its deployment: how it ended, what it wrote last, what its probe was told last."""
    return {
        "instance_id": row.pk,
        "slot": row.slot,
        "node": row.node.name if row.node else None,
        "status": row.status,
        "health": row.health,
        "restarts": row.restarts,
        "crashes": row.crashes,
        "detail": row.detail,
        "reason": row.reason,
        "last_exit": row.last_exit,
        "last_probe": row.last_probe,
        "log": (row.last_exit or {}).get("lines") or log,
        "placement": row.placement,
    }

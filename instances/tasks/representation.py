"""How tasks look in the API. Rows in, plain data out; no queries."""

from __future__ import annotations

from typing import Any

from instances.tasks.models import Task
from omni.kernel.clock import rfc3339


def task(row: Task) -> dict[str, Any]:
    """`row` with its release. Values of its environment are never shown: any of them may be a secret."""
    base = f"/app/{row.app_id}/tasks/{row.pk}"
    links = {"self": base, "logs": f"{base}/logs", "cancel": f"{base}/cancel", "app": f"/app/{row.app_id}/info"}
    if row.instance_number is not None:
        links["instance"] = f"/app/{row.app_id}/instances/{row.instance_number}/details"
    return {
        "id": row.pk,
        "app_id": row.app_id,
        "kind": row.kind,
        "status": row.status,
        "command": row.command,
        "version": row.release.version,
        "release": row.release.number,
        "env_keys": row.env_keys,
        "memory_mb": row.memory_mb,
        "cpu": row.cpu,
        "timeout_s": row.timeout_s,
        "reason": row.reason,
        "exit_code": row.exit_code,
        "exit_signal": row.exit_signal,
        "error": {"code": row.error_code, "detail": row.reason} if row.error_code else None,
        "evidence": row.evidence or None,
        "stopping_for": row.stop_code or None,
        "node": row.node_name or None,
        "instance_id": row.instance_number,
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "start_by": rfc3339(row.start_by),
        "started_at": rfc3339(row.started_at),
        "stop_by": rfc3339(row.stop_by),
        "finished_at": rfc3339(row.finished_at),
        "revision": row.revision,
        "links": links,
    }

"""How snapshots and restores look in the API. Rows in, plain data out; no queries."""

from __future__ import annotations

from typing import Any

from instances.volumes.snapshots.models import VolumeRestore, VolumeSnapshot
from omni.kernel.clock import rfc3339


def snapshot(row: VolumeSnapshot) -> dict[str, Any]:
    """`size_bytes` is the archive's, `content_bytes` what it unpacks to; None until it is there."""
    base = f"/app/{row.app_id}"
    return {
        **_job(row), "consistency": row.consistency, "sha256": row.artifact_id, "size_bytes": row.size_bytes,
        "content_bytes": row.content_bytes, "files": row.files, "skipped": row.skipped,
        "links": {"self": f"{base}/snapshots/{row.pk}", "volume": f"{base}/volumes/{row.volume_name}",
                  "app": f"{base}/info"},
    }  # fmt: skip


def restore(row: VolumeRestore) -> dict[str, Any]:
    base = f"/app/{row.app_id}/volumes/{row.volume_name}"
    return {
        **_job(row), "snapshot": row.snapshot_number,
        "links": {"self": f"{base}/restores/{row.pk}", "volume": base, "app": f"/app/{row.app_id}/info"},
    }  # fmt: skip


def _job(row: VolumeSnapshot | VolumeRestore) -> dict[str, Any]:
    return {
        "id": row.pk, "app_id": row.app_id, "volume": row.volume_name, "node": row.node_name, "status": row.status,
        "reason": row.reason, "detail": row.detail, "done_bytes": row.done_bytes, "created_by": row.created_by,
        "created_at": rfc3339(row.created_at), "started_at": rfc3339(row.started_at),
        "ended_at": rfc3339(row.ended_at), "deadline_at": rfc3339(row.deadline_at), "revision": row.revision,
    }  # fmt: skip

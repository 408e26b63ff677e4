"""How volumes look in the API. Rows in, plain data out; no queries."""

from __future__ import annotations

from typing import Any

from instances.volumes.models import Volume
from omni.kernel.clock import rfc3339


def volume(row: Volume) -> dict[str, Any]:
    """`size_bytes` is what its node's agent measured last; None while nobody has."""
    base = f"/app/{row.app_number}/volumes/{row.name}"
    return {
        "id": row.pk,
        "app_id": row.app_number,
        "name": row.name,
        "path": row.path,
        "node": row.node_name,
        "status": row.status,
        "size_bytes": row.size_bytes,
        "measured_at": rfc3339(row.measured_at),
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "revision": row.revision,
        "links": {"self": base, "app": f"/app/{row.app_number}/info"},
    }


def loss(rows: list[Volume]) -> list[dict[str, Any]]:
    """What would be lost with these."""
    return [{"volume": row.name, "path": row.path, "node": row.node_name, "size_bytes": row.size_bytes} for row in rows]


def in_words(rows: list[Volume]) -> str:
    """The same in a sentence's part: `data (12.0 MB on n1)`."""
    return ", ".join(f"{row.name} ({_size(row.size_bytes)} on {row.node_name})" for row in rows)


def _size(size: int | None) -> str:
    return "of unknown size" if size is None else f"{size / 1_000_000:.1f} MB"

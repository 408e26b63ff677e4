"""How builds and releases look in the API. Pure: rows in, plain data out; no queries."""

from __future__ import annotations

from typing import Any

from releases.models import Build, Release


def build(row: Build, release_id: int | None) -> dict[str, Any]:
    """`row` with its artifact; `release_id` of the release that it made."""
    base = f"/app/{row.app_id}"
    links = {"self": f"{base}/builds/{row.pk}", "logs": f"{base}/builds/{row.pk}/logs", "app": f"{base}/info"}
    if row.release_number is not None:
        links["release"] = f"{base}/release/{row.version}"
    elif row.finished_at is None:
        links["cancel"] = f"{base}/builds/{row.pk}/cancel"
    return {
        "id": row.pk,
        "app_id": row.app_id,
        "version": row.version,
        "status": row.status,
        "attempt": row.attempt,
        "builder": row.builder or None,
        "image": row.image or None,
        "artifact": {"sha256": row.artifact_id, "size": row.artifact.size},
        "deploy": row.deploy,
        "cancel_requested": row.cancel_requested,
        "error": {"code": row.error_code, "detail": row.error_detail} if row.error_code else None,
        "steps": row.steps,
        "release_id": release_id,
        "release_number": row.release_number,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "revision": row.revision,
        "links": links,
    }


def release(row: Release, desired: int | None) -> dict[str, Any]:
    """`row` with artifact, package and configuration; `desired` is the number that its app wants."""
    base = f"/app/{row.app_id}"
    return {
        "id": row.pk,
        "app_id": row.app_id,
        "number": row.number,
        "version": row.version,
        "desired": row.number == desired,
        "build_id": row.build_id,
        "artifact": {"sha256": row.artifact_id, "size": row.artifact.size},
        "package": {"sha256": row.package_id, "size": row.package.size},
        "image": row.build.image or None,
        "process_types": row.process_types,
        "config": row.config.number,
        "reason": row.reason,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "revision": row.revision,
        "links": {
            "self": f"{base}/release/{row.version}",
            "build": f"{base}/builds/{row.build_id}",
            "deploy": f"{base}/release/{row.version}/deploy",
            "app": f"{base}/info",
        },
    }

"""An upload becomes an artifact and a queued build, in one transaction.

Owns the rule that a version is immutable: the same bytes answer the existing build, other bytes are refused; a failed
or cancelled build frees its version. Uploads are never refused for `max_builds_at_once`: they wait in the queue, and
the quota counts where it costs something, when a worker claims.
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.models import App, DesiredState
from consensus.gate import Transaction
from observing import journal
from omni.kernel.errors import Conflict
from releases.models import Artifact, Build
from releases.states import BuildStatus


@dataclass(frozen=True, slots=True)
class Accepted:
    """`created` is False when the very same upload had been taken before."""

    build: Build
    created: bool


def version_key(app_id: int, version: str) -> str:
    """What is unique while a build holds its version. Without case: no database of ours is to see two in `v1`, `V1`."""
    return f"{app_id}:{version.lower()}"


def existing_build(app: App, version: str, sha256: str) -> Build | None:
    """The build that holds this version, if its bytes are these. Raises Conflict when they are others."""
    found = Build.objects.filter(version_key=version_key(app.pk, version)).first()
    if found is None:
        return None
    if found.version != version or found.artifact_id != sha256:
        raise Conflict(
            f"Version {found.version} of {app.name} exists with other content (sha256 {found.artifact_id[:12]}…); "
            "a version never changes.",
            code="version_exists",
            next=f"upload under another version, or POST /app/{app.pk}/release/{found.version}/deploy",
        )
    return found


def accept_upload(
    tx: Transaction, *, app: App, version: str, sha256: str, size: int, media_type: str, deploy: bool
) -> Accepted:
    """Insert the artifact and Build(queued). The bytes lie in the store already; `app` was read in this transaction."""
    if app.desired_state == DesiredState.DELETED:
        raise Conflict("The app is being deleted.", code="app_deleting")
    existing = existing_build(app, version, sha256)
    if existing is not None:
        return Accepted(existing, created=False)
    keep_artifact(tx, sha256=sha256, size=size, media_type=media_type, kind="upload")
    build = Build.objects.create(
        app=app,
        version=version,
        version_key=version_key(app.pk, version),
        artifact_id=sha256,
        deploy=deploy,
        status=BuildStatus.QUEUED,
        created_by=tx.actor.label,
        request_id=journal.current(),
        created_at=tx.at,
    )
    tx.record(
        "build.queued",
        "build",
        build.pk,
        org_id=app.org_id,
        app_id=app.pk,
        change={"version": version, "sha256": sha256, "deploy": deploy},
    )
    return Accepted(build, created=True)


def keep_artifact(tx: Transaction, *, sha256: str, size: int, media_type: str, kind: str) -> None:
    """Insert the row, or take hold of the one that is there: the lock and the new time keep the collector off it."""
    row = Artifact(sha256=sha256, size=size, media_type=media_type, kind=kind, created_at=tx.at)
    Artifact.objects.bulk_create([row], ignore_conflicts=True)
    Artifact.objects.filter(pk=sha256).update(created_at=tx.at)

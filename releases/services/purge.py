"""What is no longer wanted: the releases and builds of a deleted app, and artifacts that no row refers to.

Owns the order: rows first, in batches, one transaction each; bytes only after the commit that made them unwanted, and
never bytes that were stored again since (`ArtifactStore.discard`).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from django.db.models import Exists, OuterRef, QuerySet

from apps.models import App
from consensus.gate import Transaction
from releases import build_log
from releases.copies import discard_everywhere
from releases.models import Artifact, Build, Release

BATCH = 200


@dataclass(frozen=True, slots=True)
class Purged:
    """One batch: `done` when nothing is left; `artifacts` (digest, last wanted at) may go after the commit."""

    done: bool
    artifacts: list[tuple[str, dt.datetime]] = field(default_factory=list)


def purge_app(tx: Transaction, app: App, *, limit: int = BATCH) -> Purged:
    """Remove one batch of the app's releases and builds. Instances and deployments must be gone already.

    Build logs go with their builds; `Purged.artifacts` are those that nobody else shares.
    """
    releases = list(Release.objects.filter(app=app).order_by("pk")[:limit])
    if releases:
        digests = {row.artifact_id for row in releases} | {row.package_id for row in releases}
        Release.objects.filter(pk__in=[row.pk for row in releases]).delete()
    else:
        builds = list(Build.objects.filter(app=app).order_by("pk")[:limit])
        digests = {row.artifact_id for row in builds}
        ids = [row.pk for row in builds]
        Build.objects.filter(pk__in=ids).delete()
        tx.after_commit.append(lambda: build_log.forget(ids))
    artifacts = drop_unreferenced(sorted(digests))
    done = not Release.objects.filter(app=app).exists() and not Build.objects.filter(app=app).exists()
    if digests:
        change = {"releases": len(releases), "artifacts": len(artifacts)}
        tx.record("app.releases_purged", "app", app.pk, org_id=app.org_id, app_id=app.pk, change=change)
    return Purged(done, artifacts)


def collect_artifacts(tx: Transaction, *, wanted_before: dt.datetime, limit: int = BATCH) -> Purged:
    """Remove artifact rows that nobody refers to and nobody wanted since: what failed and replaced builds leave."""
    candidates = _unreferenced().filter(created_at__lt=wanted_before).order_by("created_at")
    digests = list(candidates.values_list("pk", flat=True)[:limit])
    artifacts = drop_unreferenced(digests, wanted_before)
    if artifacts:
        tx.record("artifacts.collected", "artifact", 0, change={"count": len(artifacts)})
    return Purged(len(digests) < limit, artifacts)


def _unreferenced() -> QuerySet[Artifact]:
    return Artifact.objects.filter(
        ~Exists(Build.objects.filter(artifact=OuterRef("pk"))),
        ~Exists(Release.objects.filter(artifact=OuterRef("pk"))),
        ~Exists(Release.objects.filter(package=OuterRef("pk"))),
        snapshots__isnull=True,  # of volumes: rows of a layer above
    )


def drop_unreferenced(digests: list[str], wanted_before: dt.datetime | None = None) -> list[tuple[str, dt.datetime]]:
    """Of these rows those that nobody refers to, removed: (digest, last wanted at), for `discard` after the commit.

    Lock first, look afterwards: an upload that wants one of them now is seen, or waits and inserts it anew.
    """
    locked = list(Artifact.objects.select_for_update().filter(pk__in=digests).values_list("pk", "created_at"))
    free = set(_unreferenced().filter(pk__in=[pk for pk, _ in locked]).values_list("pk", flat=True))
    found = [(pk, at) for pk, at in locked if pk in free and (wanted_before is None or at < wanted_before)]
    Artifact.objects.filter(pk__in=[pk for pk, _ in found]).delete()
    return found


def discard(artifacts: list[tuple[str, dt.datetime]]) -> int:
    """The bytes of removed rows; to be called after the commit, outside the gate. How many files went."""
    return discard_everywhere(artifacts)

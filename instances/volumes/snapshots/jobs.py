"""What a node's agent is told of snapshots and restores, and what it tells of them.

Owns the lease: each word of the agent moves the time at which the leader gives the job up, to the deadline at most.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db.models import F

from agent.protocol import VolumeJobSeen
from apps.models import DesiredState
from consensus.gate import Transaction
from instances.models import Instance
from instances.states import ON_NODE
from instances.volumes.snapshots import services
from instances.volumes.snapshots.models import STOPPED, VolumeRestore, VolumeSnapshot
from instances.volumes.snapshots.states import (
    AGENT,
    LEADER,
    RESTORE,
    RESTORING,
    SNAPSHOT,
    TAKING,
    RestoreStatus,
    SnapshotStatus,
)
from omni.kernel.errors import Conflict
from omni.kernel.transitions import move
from releases.copies import stored_size
from releases.services.uploads import keep_artifact

LEASE_S = 90.0  # without a word of the agent, which speaks every ten seconds
MEDIA_TYPE = "application/gzip"


def of_node(node: str) -> list[dict[str, Any]]:
    """What the node's agent is to do, as `agent.protocol.VolumeJob` says it. What has to be still begins when the last
    instance of its app has ended."""
    snapshots = list(_listed(VolumeSnapshot.objects.filter(node_name=node, status__in=TAKING)))
    restores = list(
        _listed(VolumeRestore.objects.filter(node_name=node, status__in=RESTORING)).select_related("snapshot__artifact")
    )
    if not snapshots and not restores:
        return []
    apps = {row.app_id for row in (*snapshots, *restores)}
    busy = set(Instance.objects.filter(app_id__in=apps, status__in=ON_NODE).values_list("app_id", flat=True))
    most = settings.CONFIG.limits.snapshot_max_bytes
    jobs = [
        {"kind": "snapshot", "id": row.pk, "key": row.volume_key, "still": row.consistency == STOPPED,
         "max_bytes": most}
        for row in snapshots
        if row.consistency != STOPPED or row.status != SnapshotStatus.PENDING or row.app_id not in busy
    ]  # fmt: skip
    for row in restores:
        source = row.snapshot
        if source is None or source.artifact is None or (row.status == RestoreStatus.PENDING and row.app_id in busy):
            continue
        jobs.append(
            {"kind": "restore", "id": row.pk, "key": row.volume_key, "still": True, "sha256": source.artifact_id,
             "size": source.size_bytes, "content_bytes": source.content_bytes, "root": source.root}
        )  # fmt: skip
    return jobs


def is_wanted(node: str, number: int) -> bool:
    """Whether that node's agent is to bring the archive of that snapshot."""
    return VolumeSnapshot.objects.filter(pk=number, node_name=node, status__in=TAKING).exists()


def is_needed(node: str, sha256: str) -> bool:
    """Whether that node's agent is to restore from that archive."""
    rows = VolumeRestore.objects.filter(node_name=node, status__in=RESTORING, snapshot__artifact_id=sha256)
    return rows.exists()


def look_up(seen: Sequence[VolumeJobSeen]) -> None:
    """Ask other hosts for the sizes of what was brought, if need be, before a transaction wants to know."""
    for entry in seen:
        if entry.kind == "snapshot" and entry.ended and entry.sha256:
            stored_size(entry.sha256)


def reported(tx: Transaction, node: str, seen: Sequence[VolumeJobSeen]) -> None:
    """What is late, or another node's, changes nothing."""
    for entry in seen:
        rows: Any = VolumeSnapshot.objects if entry.kind == "snapshot" else VolumeRestore.objects
        states = TAKING if entry.kind == "snapshot" else RESTORING
        row = rows.select_related("app").filter(pk=entry.id, node_name=node, status__in=states).first()
        if row is None:
            continue
        _begin(tx, row)
        if not entry.ended:
            _renew(tx, row, entry)
        elif isinstance(row, VolumeSnapshot):
            _end_snapshot(tx, row, entry)
        else:
            _end_restore(tx, row, entry)


def give_up(tx: Transaction, row: VolumeSnapshot | VolumeRestore) -> None:
    """The leader's word that nobody knows how it went. Raises TransitionRefused."""
    reason = "agent_away" if row.status == SnapshotStatus.PENDING else "agent_lost"
    if row.started_at is not None and row.deadline_at <= tx.at:
        reason = "too_long"
    _end(tx, row, "lost", LEADER, reason, _LOST[reason])


_LOST = {
    "agent_away": "the node's agent did not begin in time; nothing was changed",
    "agent_lost": "the node's agent has not been heard of",
    "too_long": "it took longer than timings.volume_job_s",
}


def _listed(rows: Any) -> Any:
    return rows.exclude(app__desired_state=DesiredState.DELETED).order_by("id")


def _begin(tx: Transaction, row: VolumeSnapshot | VolumeRestore) -> None:
    if row.status != SnapshotStatus.PENDING:
        return
    to = SnapshotStatus.TAKING if isinstance(row, VolumeSnapshot) else RestoreStatus.RESTORING
    move(type(row), row.pk, table=_table(row), to=to, owner=AGENT, started_at=tx.at)
    services.record(tx, row, f"{_noun(row)}.{to}", {"volume": row.volume_name, "node": row.node_name})
    row.status, row.started_at = to, tx.at


def _renew(tx: Transaction, row: VolumeSnapshot | VolumeRestore, entry: VolumeJobSeen) -> None:
    until = min(tx.at + dt.timedelta(seconds=LEASE_S), row.deadline_at)
    changed = type(row).objects.filter(pk=row.pk, status=row.status)
    changed.update(end_by=until, done_bytes=entry.done_bytes, revision=F("revision") + 1)
    services.record(tx, row, f"{_noun(row)}.progressed", {"done_bytes": entry.done_bytes})


def _end_snapshot(tx: Transaction, row: VolumeSnapshot, entry: VolumeJobSeen) -> None:
    if entry.reason:
        _end(tx, row, "failed", AGENT, entry.reason, entry.detail)
        return
    if stored_size(entry.sha256) != entry.size:
        _end(tx, row, "failed", AGENT, "archive_missing", "the archive is not in the artifact storage")
        return
    keep_artifact(tx, sha256=entry.sha256, size=entry.size, media_type=MEDIA_TYPE, kind="snapshot")
    _end(
        tx, row, "succeeded", AGENT, "", "", artifact_id=entry.sha256, size_bytes=entry.size,
        content_bytes=entry.content_bytes, files=entry.files, skipped=entry.skipped, root=entry.root,
        done_bytes=entry.content_bytes,
    )  # fmt: skip
    _let_old_ones_go(tx, row)


def _let_old_ones_go(tx: Transaction, row: VolumeSnapshot) -> None:
    """The newest of a volume are kept, as many as configured; one that is being restored stays until the next time."""
    kept = settings.CONFIG.limits.snapshots_kept
    good = VolumeSnapshot.objects.select_related("app").filter(
        app_id=row.app_id, volume_name=row.volume_name, status=SnapshotStatus.SUCCEEDED
    )
    for old in good.order_by("-id")[kept:]:
        try:
            services.delete(tx, old, f"the newest {kept} are kept")
        except Conflict:
            continue


def _end_restore(tx: Transaction, row: VolumeRestore, entry: VolumeJobSeen) -> None:
    if entry.reason:
        _end(tx, row, "failed", AGENT, entry.reason, entry.detail)
    else:
        _end(tx, row, "succeeded", AGENT, "", "", done_bytes=entry.done_bytes)


def _end(
    tx: Transaction, row: VolumeSnapshot | VolumeRestore, to: str, owner: str, reason: str, detail: str, **fields: Any
) -> None:
    move(type(row), row.pk, table=_table(row), to=to, owner=owner, source=row.status,
         ended_at=tx.at, reason=reason[:32], detail=detail[:300], **fields)  # fmt: skip
    took = round((tx.at - row.started_at).total_seconds(), 3) if row.started_at is not None else None
    shown = {"volume": row.volume_name, "node": row.node_name, "duration_s": took, "reason": reason[:32]}
    if "size_bytes" in fields:
        shown["size_bytes"] = fields["size_bytes"]
    services.record(tx, row, f"{_noun(row)}.{to}", shown)


def _table(row: VolumeSnapshot | VolumeRestore) -> Any:
    return SNAPSHOT if isinstance(row, VolumeSnapshot) else RESTORE


def _noun(row: VolumeSnapshot | VolumeRestore) -> str:
    return "snapshot" if isinstance(row, VolumeSnapshot) else "restore"

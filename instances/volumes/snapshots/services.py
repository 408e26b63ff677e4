"""What people ask of snapshots: make one, delete it, restore it. Each verb runs inside the gate on a locked app.

One job at a time is under way on the volumes of an app. What happens to the bytes is the agent's (`jobs`).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.conf import settings

from apps import services as app_services
from apps.models import App, DesiredState
from consensus.gate import Transaction
from instances import services as instance_services
from instances.models import Instance, Node
from instances.states import ON_NODE, NodeStatus
from instances.volumes.models import Volume
from instances.volumes.snapshots import holding
from instances.volumes.snapshots.models import LIVE, STOPPED, VolumeRestore, VolumeSnapshot
from instances.volumes.snapshots.states import API, RESTORING, SNAPSHOT, SnapshotStatus
from omni.kernel.errors import Conflict, NotFound
from omni.kernel.transitions import move

BEGIN_S = 600.0  # in which the agent has to begin; stopping the app first takes its part of it


def snapshots_of(app: App, name: str | None = None) -> Any:
    rows = VolumeSnapshot.objects.filter(app=app).exclude(status=SnapshotStatus.REMOVED)
    return rows if name is None else rows.filter(volume_name=name)


def find(app: App, number: int) -> VolumeSnapshot:
    """Raises NotFound."""
    found: VolumeSnapshot | None = snapshots_of(app).filter(pk=number).first()
    if found is None:
        raise NotFound("There is no such snapshot.", next=f"GET /app/{app.pk}/snapshots")
    return found


def create(tx: Transaction, app: App, volume: Volume, wanted: str | None) -> VolumeSnapshot:
    """`wanted`: how consistent it has to be; None: as it can be had now. Raises Conflict."""
    _refuse_unready(app, volume)
    running = _running(app)
    if wanted == STOPPED and running:
        raise Conflict(
            f"{running} instances or tasks of the app run; a snapshot of a stopped app was asked for.",
            code="volume_in_use", next=f'POST /app/{app.pk}/stop, or ask for {{"consistency": "live"}}',
        )  # fmt: skip
    consistency = wanted or (LIVE if running else STOPPED)
    row = VolumeSnapshot(app=app, consistency=consistency, **_job(tx, volume))
    row.save(force_insert=True)
    if consistency == STOPPED:
        app_services.outdate_plans(tx, app)
    record(tx, row, "snapshot.created", {"volume": volume.name, "node": volume.node_name, "consistency": consistency})
    return row


def delete(tx: Transaction, row: VolumeSnapshot, why: str = "") -> None:
    """In any state; one that is being taken is called off. Raises Conflict while a restore needs it."""
    if VolumeRestore.objects.filter(snapshot=row, status__in=RESTORING).exists():
        raise Conflict("A restore from this snapshot is under way.", code="snapshot_in_use",
                       next=f"GET /app/{row.app_id}/volumes/{row.volume_name}/restores")  # fmt: skip
    move(VolumeSnapshot, row.pk, table=SNAPSHOT, to=SnapshotStatus.REMOVED, owner=API)
    change = {"volume": row.volume_name, "size_bytes": row.size_bytes, **({"why": why} if why else {})}
    record(tx, row, "snapshot.removed", change)


def restore(tx: Transaction, app: App, volume: Volume, snapshot: VolumeSnapshot, *, stop: bool) -> VolumeRestore:
    """All that is in the volume is replaced by what is in the snapshot. `stop`: stop the app for it.
    Raises Conflict."""
    if snapshot.status != SnapshotStatus.SUCCEEDED:
        raise Conflict(f"The snapshot is {snapshot.status}.", code="snapshot_not_usable",
                       next=f"GET /app/{app.pk}/snapshots")  # fmt: skip
    _refuse_unready(app, volume)
    tasks = Instance.objects.filter(app=app, status__in=ON_NODE, task__isnull=False).count()
    running = _running(app)
    if tasks or (running and not stop):
        what, then = ("tasks", "wait for their end, or cancel them") if tasks else ("instances", '{"stop": true}')
        raise Conflict(f"{tasks or running} {what} of the app use the volume.", code="volume_in_use",
                       next=f"POST /app/{app.pk}/stop, or {then}")  # fmt: skip
    if stop:
        instance_services.stop(tx, app)
    row = VolumeRestore(app=app, volume=volume, snapshot=snapshot, snapshot_number=snapshot.pk, **_job(tx, volume))
    row.save(force_insert=True)
    app_services.outdate_plans(tx, app)
    record(tx, row, "restore.created", {"volume": volume.name, "node": volume.node_name, "snapshot": snapshot.pk})
    return row


def record(tx: Transaction, row: VolumeSnapshot | VolumeRestore, kind: str, change: dict[str, Any]) -> None:
    noun = kind.partition(".")[0]
    tx.record(kind, noun, row.pk, org_id=row.app.org_id, app_id=row.app_id, change=change)


def _job(tx: Transaction, volume: Volume) -> dict[str, Any]:
    longest = dt.timedelta(seconds=settings.CONFIG.timings.volume_job_s)
    return {
        "volume_name": volume.name, "volume_key": volume.key, "node_name": volume.node_name,
        "created_by": tx.actor.label, "created_at": tx.at, "deadline_at": tx.at + longest,
        "end_by": min(tx.at + dt.timedelta(seconds=BEGIN_S), tx.at + longest),
    }  # fmt: skip


def _running(app: App) -> int:
    return Instance.objects.filter(app=app, status__in=ON_NODE).count()


def _refuse_unready(app: App, volume: Volume) -> None:
    if app.desired_state == DesiredState.DELETED:
        raise Conflict("The app is being deleted.", code="app_deleting")
    busy = holding.busy(app.pk)
    if busy is not None:
        raise Conflict(f"One thing at a time: {busy}.", code="volume_busy", next=f"GET /app/{app.pk}/snapshots")
    there = (NodeStatus.READY, NodeStatus.DRAINING)
    if not Node.objects.filter(name=volume.node_name, status__in=there).exists():
        raise Conflict(f"The volume is on {volume.node_name}, which is away.", code="volume_node_away",
                       next="GET /nodes")  # fmt: skip

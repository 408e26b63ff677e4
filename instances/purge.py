"""The end of a deleted app: its rows go in batches, from the top layer down, then the app itself.

Owns the order. Each batch is one gated transaction and may be repeated; bytes of artifacts and telemetry go after the
commit that made them unwanted.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from apps.models import App, DesiredState
from consensus import gate
from consensus.gate import Transaction
from instances.models import CronRun, Deployment, Instance, Task, Volume
from instances.states import ENDED
from instances.telemetry import retention
from instances.volumes.snapshots.models import VolumeRestore, VolumeSnapshot
from omni.kernel.context import system
from releases import services as releases
from releases.services.purge import Purged

BATCH = 200
MOST_BATCHES = 200  # of one call; the next tick goes on


@dataclass(slots=True)
class _Batch:
    done: bool = False
    instances: list[int] = field(default_factory=list)
    purged: Purged | None = None


def purge(app_id: int) -> bool:
    """True when nothing is left of the app."""
    for _ in range(MOST_BATCHES):
        batch, _ = gate.run(lambda tx: _one(tx, app_id), actor=system("controller"), cause="the app was deleted")
        retention.forget_instances(batch.instances)
        if batch.purged is not None:
            releases.discard(batch.purged.artifacts)
        if batch.done:
            retention.forget_app(app_id)
            return True
    return False


def forget_ended(before: dt.datetime) -> int:
    """One batch of instances that ended before that moment and of which no node holds anything; how many."""
    rows = Instance.objects.filter(desired="remove", on_node=False, status__in=ENDED, finished_at__lt=before)
    ids = list(rows.order_by("id").values_list("id", flat=True)[:BATCH])
    if not ids:
        return 0

    def verb(tx: Transaction) -> None:
        Instance.objects.filter(pk__in=ids).delete()
        tx.record("instances.forgotten", "platform", 0, change={"count": len(ids)})

    gate.run(verb, actor=system("controller"), cause="their logs are no longer kept")
    retention.forget_instances(ids)
    return len(ids)


def _one(tx: Transaction, app_id: int) -> _Batch:
    app = App.objects.select_for_update().filter(pk=app_id, desired_state=DesiredState.DELETED).first()
    if app is None:
        return _Batch(done=True)
    rows = list(Instance.objects.filter(app=app).order_by("id").values_list("id", "status")[:BATCH])
    if any(status not in ENDED for _, status in rows):
        raise RuntimeError(f"app {app_id} still has live instances")
    if rows:
        ids = [instance_id for instance_id, _ in rows]
        Instance.objects.filter(pk__in=ids).delete()
        tx.record("app.instances_purged", "app", app.pk, org_id=app.org_id, app_id=app.pk, change={"count": len(ids)})
        return _Batch(instances=ids)
    deployments = list(Deployment.objects.filter(app=app).order_by("id").values_list("id", flat=True)[:BATCH])
    if deployments:
        Deployment.objects.filter(pk__in=deployments).delete()
        change = {"count": len(deployments)}
        tx.record("app.deployments_purged", "app", app.pk, org_id=app.org_id, app_id=app.pk, change=change)
        return _Batch()
    runs = list(CronRun.objects.filter(entry__app=app).order_by("id").values_list("id", flat=True)[:BATCH])
    if runs:
        CronRun.objects.filter(pk__in=runs).delete()
        tx.record("app.cron_purged", "app", app.pk, org_id=app.org_id, app_id=app.pk, change={"count": len(runs)})
        return _Batch()
    tasks = list(Task.objects.filter(app=app).order_by("id").values_list("id", flat=True)[:BATCH])
    if tasks:
        Task.objects.filter(pk__in=tasks).delete()
        tx.record("app.tasks_purged", "app", app.pk, org_id=app.org_id, app_id=app.pk, change={"count": len(tasks)})
        return _Batch()
    snapshots = list(VolumeSnapshot.objects.filter(app=app).order_by("id").values_list("id", "artifact_id")[:BATCH])
    if snapshots:
        VolumeRestore.objects.filter(app=app).delete()
        VolumeSnapshot.objects.filter(pk__in=[number for number, _ in snapshots]).delete()
        dropped = releases.drop_unreferenced(sorted({digest for _, digest in snapshots if digest is not None}))
        tx.record("app.snapshots_purged", "app", app.pk, org_id=app.org_id, app_id=app.pk,
                  change={"count": len(snapshots)})  # fmt: skip
        return _Batch(purged=Purged(False, dropped))
    purged = releases.purge_app(tx, app)
    if not purged.done:
        return _Batch(purged=purged)
    Volume.objects.filter(app=app, on_node=False).delete()  # the others stay until their node has removed the bytes
    org_id, name, pk = app.org_id, app.name, app.pk
    app.delete()
    tx.record("app.purged", "app", pk, org_id=org_id, app_id=pk, change={"name": name})
    return _Batch(done=True, purged=purged)

"""What snapshots mean for their app: what may not start meanwhile, what would be lost with it. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from apps.models import App
from instances.volumes.snapshots.models import STOPPED, VolumeRestore, VolumeSnapshot
from instances.volumes.snapshots.states import RESTORING, TAKING, SnapshotStatus


def held(app_ids: Iterable[int]) -> dict[int, str]:
    """App → why nothing of it may start, as a sentence's part. Two queries, none without apps."""
    wanted = list(app_ids)
    if not wanted:
        return {}
    found = {}
    still = VolumeSnapshot.objects.filter(app_id__in=wanted, status__in=TAKING, consistency=STOPPED)
    for app_id, number, name in still.values_list("app_id", "id", "volume_name"):
        found[app_id] = f"snapshot {number} of its volume {name} is being taken with the app stopped"
    restores = VolumeRestore.objects.filter(app_id__in=wanted, status__in=RESTORING)
    for app_id, number, name in restores.values_list("app_id", "id", "volume_name"):
        found[app_id] = f"its volume {name} is being restored (restore {number})"
    return found


def kept(app: App) -> int:
    """How many snapshots would go with the app."""
    return VolumeSnapshot.objects.filter(app=app, status=SnapshotStatus.SUCCEEDED).count()


def busy(app_id: int) -> str | None:
    """What is under way on any of the app's volumes, as a sentence's part."""
    restore = VolumeRestore.objects.filter(app_id=app_id, status__in=RESTORING).first()
    if restore is not None:
        return f"restore {restore.pk} of the volume {restore.volume_name} is under way"
    snapshot = VolumeSnapshot.objects.filter(app_id=app_id, status__in=TAKING).first()
    if snapshot is not None:
        return f"snapshot {snapshot.pk} of the volume {snapshot.volume_name} is under way"
    return None

"""Snapshots of volumes and restores from them: who asked for them, how far they are, how they ended. Rows only."""

from __future__ import annotations

from django.db import models

from apps.models import App
from instances.volumes.models import Volume
from instances.volumes.snapshots.states import RestoreStatus, SnapshotStatus
from releases.models import Artifact

LIVE, STOPPED = "live", "stopped"


class _Job(models.Model):
    """Work of a node's agent on a volume. `end_by` is when the leader gives it up as it stands: its agent moves that on
    with every word, up to `deadline_at`."""

    id = models.BigAutoField(primary_key=True)
    volume_name = models.CharField(max_length=63)
    volume_key = models.CharField(max_length=32)
    node_name = models.CharField(max_length=64)
    done_bytes = models.BigIntegerField(default=0)
    end_by = models.DateTimeField()
    deadline_at = models.DateTimeField()
    reason = models.CharField(max_length=32, default="")  # a word for why it did not succeed
    detail = models.CharField(max_length=300, default="")
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        abstract = True


class VolumeSnapshot(_Job):
    """It outlives its volume, not its app. `consistency`: whether anything of the app could write meanwhile. `root`:
    whose the volume's directory was, and its mode."""

    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="+")
    status = models.CharField(max_length=16, choices=SnapshotStatus.choices, default=SnapshotStatus.PENDING)
    consistency = models.CharField(max_length=16)
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, null=True, related_name="snapshots")
    size_bytes = models.BigIntegerField(null=True)  # of the archive
    content_bytes = models.BigIntegerField(null=True)
    files = models.BigIntegerField(null=True)
    skipped = models.BigIntegerField(null=True)
    root = models.JSONField(default=dict)

    class Meta:
        indexes = [
            models.Index(fields=("app", "id"), name="instances_snapshot_app"),
            models.Index(fields=("node_name", "status"), name="instances_snapshot_listed"),
            models.Index(fields=("status", "end_by"), name="instances_snapshot_status"),
        ]

    def __str__(self) -> str:
        return f"snapshot {self.pk} of {self.volume_name}"


class VolumeRestore(_Job):
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="+")
    volume = models.ForeignKey(Volume, on_delete=models.CASCADE, related_name="+")
    snapshot = models.ForeignKey(VolumeSnapshot, on_delete=models.SET_NULL, null=True, related_name="+")
    snapshot_number = models.BigIntegerField()  # its id, also when that row is gone
    status = models.CharField(max_length=16, choices=RestoreStatus.choices, default=RestoreStatus.PENDING)

    class Meta:
        indexes = [
            models.Index(fields=("app", "id"), name="instances_restore_app"),
            models.Index(fields=("node_name", "status"), name="instances_restore_listed"),
            models.Index(fields=("status", "end_by"), name="instances_restore_status"),
        ]

    def __str__(self) -> str:
        return f"restore {self.pk} of {self.volume_name}"

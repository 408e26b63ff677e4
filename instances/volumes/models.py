"""Volumes: which there are, of whose app, on which node. Rows only; the bytes are the agent's (`agent.volumes`)."""

from __future__ import annotations

from django.db import models

from apps.models import App
from instances.volumes.states import VolumeStatus


class Volume(models.Model):
    """`key` names its directory on the node, and is never used again, not even by another database's rows."""

    id = models.BigAutoField(primary_key=True)
    key = models.CharField(max_length=32, unique=True)
    app = models.ForeignKey(App, on_delete=models.SET_NULL, null=True, related_name="volumes")  # None: it is deleted
    app_number = models.BigIntegerField()  # the app's id, also when that row is gone
    org_number = models.BigIntegerField()
    name = models.CharField(max_length=63)
    path = models.CharField(max_length=200)  # inside its instances
    node_name = models.CharField(max_length=64)
    status = models.CharField(max_length=16, choices=VolumeStatus.choices, default=VolumeStatus.READY)
    live = models.BooleanField(null=True, default=True)  # None once removed: its name is free again
    on_node = models.BooleanField(default=True)  # its node may still have bytes of it
    size_bytes = models.BigIntegerField(null=True)  # None: nobody has measured it
    measured_at = models.DateTimeField(null=True)
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    removed_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("app", "name", "live"), name="instances_volume_name_once")]
        indexes = [models.Index(fields=("node_name", "on_node"), name="instances_volume_listed")]

    def __str__(self) -> str:
        return f"{self.name} of app {self.app_number}"

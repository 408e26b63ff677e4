"""Sessions: who runs or ran which command in which instance, and how it ended. Nothing of what was said."""

from __future__ import annotations

from django.db import models

from apps.models import App
from instances.exec.states import SessionStatus


class ExecSession(models.Model):
    """`member` is where its caller waits; `end_by` the time at which the leader gives it up in its present state."""

    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="+")
    instance_number = models.BigIntegerField()  # the instance's id, also when that row is gone
    node_name = models.CharField(max_length=64)
    status = models.CharField(max_length=16, choices=SessionStatus.choices, default=SessionStatus.OPEN)
    argv = models.JSONField()
    tty = models.BooleanField(default=False)
    columns = models.PositiveIntegerField(default=80)
    rows = models.PositiveIntegerField(default=24)
    ticket_hash = models.CharField(max_length=64)
    member = models.CharField(max_length=64, default="")
    idle_s = models.FloatField()
    max_s = models.FloatField()
    end_by = models.DateTimeField()
    exit_code = models.IntegerField(null=True)
    reason = models.CharField(max_length=32, default="")  # a word for why it ended
    detail = models.CharField(max_length=300, default="")
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        indexes = [
            models.Index(fields=("instance_number", "id"), name="instances_exec_instance"),
            models.Index(fields=("node_name", "status"), name="instances_exec_listed"),
            models.Index(fields=("status", "end_by"), name="instances_exec_status"),
        ]

    def __str__(self) -> str:
        return f"session {self.pk} in instance {self.instance_number}"

"""Tasks: what was to run once, and what came of it. Rows only.

The instance that runs a task points at it (`Instance.task`, unique): the database itself lets no task run twice.
"""

from __future__ import annotations

from django.db import models

from apps.models import App
from instances.tasks.states import TaskStatus
from releases.models import Release


class Task(models.Model):
    """`kind`: run (somebody asked), release (before a rollout), cron. Durations in seconds."""

    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="tasks")
    kind = models.CharField(max_length=8)
    status = models.CharField(max_length=16, choices=TaskStatus.choices, default=TaskStatus.QUEUED)
    release = models.ForeignKey(Release, on_delete=models.CASCADE, related_name="+")
    command = models.CharField(max_length=4096)
    env = models.TextField(default="")  # sealed: over the environment of the release; empty: nothing of its own
    env_keys = models.JSONField(default=list)
    memory_mb = models.PositiveIntegerField()
    cpu = models.FloatField()
    timeout_s = models.FloatField()
    start_by = models.DateTimeField()  # not begun then: failed
    stop_by = models.DateTimeField(null=True)  # still running then: timed_out
    stop_code = models.CharField(max_length=16, default="")  # cancelled | timed_out | not_started, once it is to end
    reason = models.CharField(max_length=300, default="")  # where it stands and why, in words
    error_code = models.CharField(max_length=64, default="")
    exit_code = models.IntegerField(null=True)
    exit_signal = models.IntegerField(null=True)
    evidence = models.JSONField(default=dict)  # how its process ended, with its last lines
    node_name = models.CharField(max_length=64, default="")
    instance_number = models.BigIntegerField(null=True)  # the id of its instance, also when that row is gone
    created_by = models.CharField(max_length=160)
    request_id = models.CharField(max_length=64, default="", db_default="")  # of whoever asked for it
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        indexes = [
            models.Index(fields=("app", "id"), name="instances_task_app"),
            models.Index(fields=("status",), name="instances_task_status"),
            models.Index(fields=("finished_at",), name="instances_task_finished"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk} of {self.app}"

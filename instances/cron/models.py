"""Cron entries and their history. Rows only.

A run's row is the claim of a due time: (entry, due_at) is unique, so the database itself lets none be started twice.
"""

from __future__ import annotations

from django.db import models

from apps.models import App
from instances.tasks.models import Task


class CronEntry(models.Model):
    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="cron_entries")
    name = models.CharField(max_length=63)
    schedule = models.CharField(max_length=120)
    time_zone = models.CharField(max_length=64, default="UTC")
    command = models.CharField(max_length=4096, default="")  # empty: that of the process type
    process_type = models.CharField(max_length=32, default="")
    env = models.TextField(default="")  # sealed; empty: nothing of its own
    env_keys = models.JSONField(default=list)
    memory_mb = models.PositiveIntegerField(null=True)
    cpu = models.FloatField(null=True)
    timeout_s = models.FloatField()
    overlap = models.CharField(max_length=8, default="skip")  # skip | allow | replace
    start_deadline_s = models.FloatField()
    paused = models.BooleanField(default=False)
    next_due_at = models.DateTimeField(null=True, db_index=True)  # None: paused, or never again
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("app", "name"), name="instances_cron_name_once")]

    def __str__(self) -> str:
        return f"{self.app}/{self.name}"


class CronRun(models.Model):
    """`status`: waiting (for the one that it replaces), started, skipped, missed, refused."""

    id = models.BigAutoField(primary_key=True)
    entry = models.ForeignKey(CronEntry, on_delete=models.CASCADE, related_name="runs")
    due_at = models.DateTimeField()
    status = models.CharField(max_length=8)
    reason = models.CharField(max_length=300, default="")
    missed = models.PositiveIntegerField(default=0)  # due times that this row stands for, from due_at on
    start_by = models.DateTimeField()
    task = models.ForeignKey(Task, on_delete=models.SET_NULL, null=True, related_name="cron_runs")
    created_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("entry", "due_at"), name="instances_cron_due_once")]
        indexes = [
            models.Index(fields=("status",), name="instances_cron_run_status"),
            models.Index(fields=("created_at",), name="instances_cron_run_created"),
        ]

    def __str__(self) -> str:
        return f"{self.entry} at {self.due_at}"

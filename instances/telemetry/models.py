"""Telemetry rows: no foreign keys (they live in another database), ids and microseconds only.

Owns the layout that makes a log page at any depth cost the same: log lines are clustered by (instance, sequence).
"""

from __future__ import annotations

from django.db import models


class LogLine(models.Model):
    """One line an instance wrote; `seq` has no gaps but for explicit "n lines dropped" lines."""

    pk = models.CompositePrimaryKey("instance_id", "seq")
    instance_id = models.BigIntegerField()
    seq = models.BigIntegerField()
    app_id = models.BigIntegerField()
    at_us = models.BigIntegerField()
    stream = models.PositiveSmallIntegerField()  # 0 stdout, 1 stderr
    line = models.TextField()

    class Meta:
        app_label = "instances"
        indexes = [models.Index(fields=("app_id", "at_us"), name="instances_logline_app")]

    def __str__(self) -> str:
        return self.line


class LogOffset(models.Model):
    """The highest sequence stored per instance: a repeated batch is recognised by it, and skipped."""

    instance_id = models.BigIntegerField(primary_key=True)
    app_id = models.BigIntegerField(db_index=True)
    node = models.CharField(max_length=64)
    last_seq = models.BigIntegerField()
    first_seq = models.BigIntegerField(default=1)  # the oldest that retention has left

    class Meta:
        app_label = "instances"

    def __str__(self) -> str:
        return f"instance {self.instance_id} up to {self.last_seq}"


class LogArrival(models.Model):
    """One stored batch under its app's next number: the order in which followers read (`telemetry/arrivals.py`)."""

    pk = models.CompositePrimaryKey("app_id", "arrival")
    app_id = models.BigIntegerField()
    arrival = models.BigIntegerField()
    instance_id = models.BigIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    at_us = models.BigIntegerField()  # when it was stored

    class Meta:
        app_label = "instances"

    def __str__(self) -> str:
        return f"app {self.app_id}, batch {self.arrival}"


class LogCounter(models.Model):
    """The newest number of an app's batches."""

    app_id = models.BigIntegerField(primary_key=True)
    last = models.BigIntegerField()

    class Meta:
        app_label = "instances"

    def __str__(self) -> str:
        return f"app {self.app_id} up to batch {self.last}"


class Sample(models.Model):
    """Figures of one instance over one step: `step_s` 5 as measured, 60 and 600 rolled up (average, maximum)."""

    pk = models.CompositePrimaryKey("instance_id", "step_s", "at_us")
    instance_id = models.BigIntegerField()
    step_s = models.PositiveIntegerField()
    at_us = models.BigIntegerField()
    app_id = models.BigIntegerField()
    cpu_percent = models.FloatField(null=True)
    cpu_percent_max = models.FloatField(null=True)
    memory_bytes = models.BigIntegerField(null=True)
    memory_bytes_max = models.BigIntegerField(null=True)
    network_rx_bytes = models.BigIntegerField(null=True)
    network_tx_bytes = models.BigIntegerField(null=True)

    class Meta:
        app_label = "instances"
        indexes = [
            models.Index(fields=("app_id", "step_s", "at_us"), name="instances_sample_app"),
            models.Index(fields=("step_s", "at_us"), name="instances_sample_age"),  # roll-up and retention
        ]

    def __str__(self) -> str:
        return f"instance {self.instance_id} at {self.at_us}"


class LatestSample(models.Model):
    """The newest figures of each instance, overwritten in place: what the fast endpoints read."""

    instance_id = models.BigIntegerField(primary_key=True)
    app_id = models.BigIntegerField(db_index=True)
    at_us = models.BigIntegerField()
    cpu_percent = models.FloatField(null=True)
    memory_bytes = models.BigIntegerField(null=True)
    memory_limit_bytes = models.BigIntegerField(null=True)
    network_rx_bytes = models.BigIntegerField(null=True)
    network_tx_bytes = models.BigIntegerField(null=True)
    restarts = models.PositiveIntegerField(default=0)
    uptime_s = models.FloatField(null=True)

    class Meta:
        app_label = "instances"

    def __str__(self) -> str:
        return f"instance {self.instance_id} at {self.at_us}"


class RequestSample(models.Model):
    """Requests that ended at an instance in one window of the ingress's log; `histogram` counts by latency bucket.

    `step_s` 5 as the ingress counted them (its window may be another), 60 and 600 rolled up.
    """

    id = models.BigAutoField(primary_key=True)
    app_id = models.BigIntegerField()
    instance_id = models.BigIntegerField()
    at_us = models.BigIntegerField()
    step_s = models.PositiveIntegerField(default=5, db_default=5)
    window_s = models.FloatField()
    requests = models.BigIntegerField()
    failed = models.BigIntegerField()  # status >= 500
    refused = models.BigIntegerField(default=0)  # status 400 to 499
    retried = models.BigIntegerField(default=0)  # after another instance had been tried
    histogram = models.JSONField()

    class Meta:
        app_label = "instances"
        indexes = [
            models.Index(fields=("app_id", "at_us"), name="instances_requests_app"),
            models.Index(fields=("instance_id",), name="instances_requests_instance"),
            models.Index(fields=("step_s", "at_us"), name="instances_requests_step"),  # roll-up and retention
        ]

    def __str__(self) -> str:
        return f"app {self.app_id}: {self.requests} requests"


class RequestOffset(models.Model):
    """The highest number stored per ingress: a repeated row is recognised by it. `source` is the ingress's own mark."""

    pk = models.CompositePrimaryKey("node", "source")
    node = models.CharField(max_length=64)
    source = models.CharField(max_length=32)
    last_seq = models.BigIntegerField()
    at_us = models.BigIntegerField()  # when it last grew, for retention

    class Meta:
        app_label = "instances"

    def __str__(self) -> str:
        return f"ingress of {self.node} up to {self.last_seq}"


class HostSample(models.Model):
    """Figures of one host over one step: `step_s` 5 as measured, 60 and 600 rolled up (average, maximum)."""

    id = models.BigAutoField(primary_key=True)
    node = models.CharField(max_length=64)
    step_s = models.PositiveIntegerField(default=5, db_default=5)
    at_us = models.BigIntegerField()
    cpu_percent = models.FloatField()
    cpu_percent_max = models.FloatField(null=True)
    memory_used_bytes = models.BigIntegerField()
    memory_used_bytes_max = models.BigIntegerField(null=True)
    memory_total_bytes = models.BigIntegerField()
    disk_free_bytes = models.BigIntegerField()
    load_1m = models.FloatField()

    class Meta:
        app_label = "instances"
        indexes = [
            models.Index(fields=("node", "step_s", "at_us"), name="instances_host_step"),
            models.Index(fields=("step_s", "at_us"), name="instances_host_age"),  # roll-up and retention
        ]

    def __str__(self) -> str:
        return f"{self.node} at {self.at_us}"


class PlatformSample(models.Model):
    """What one member's own processes counted in one step: `step_s` 10 as recorded, 60 and 600 rolled up."""

    pk = models.CompositePrimaryKey("step_s", "at_us", "node")
    step_s = models.PositiveIntegerField()
    at_us = models.BigIntegerField()
    node = models.CharField(max_length=64)
    series = models.TextField()

    class Meta:
        app_label = "instances"

    def __str__(self) -> str:
        return f"{self.node} at {self.at_us}"

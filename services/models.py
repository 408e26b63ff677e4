"""Internal services under health management, their alerts, silences, remedies; and what checks measured.

Owns the control-plane rows and, at the end, the telemetry rows (another database: ids and microseconds, no foreign
keys). `Service.state` and what belongs to it is written by the leader's watch alone.
"""

from __future__ import annotations

from django.db import models

from services.states import AlertStatus, NoticeStatus, RemedyStatus


class Service(models.Model):
    """What is watched. `check` and `remedy` are `specs.Check` and `specs.Remedy` as JSON."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=120, unique=True)  # the platform's own begin with "platform:"
    description = models.CharField(max_length=500, default="")
    source = models.CharField(max_length=10)  # api | config | platform: who may change its check
    owner = models.CharField(max_length=120, default="")
    severity = models.CharField(max_length=10, default="warning")
    check_spec = models.JSONField()
    interval_s = models.FloatField()
    timeout_s = models.FloatField()
    healthy_threshold = models.PositiveIntegerField()
    unhealthy_threshold = models.PositiveIntegerField()
    start_period_s = models.FloatField()
    vantage_points = models.PositiveIntegerField(null=True)  # NULL: every node
    depends_on = models.JSONField(default=list)  # names
    remedy = models.JSONField(null=True)
    remedy_secret = models.TextField(default="")  # sealed; of a webhook
    maintenance = models.BooleanField(default=False)
    maintenance_until = models.DateTimeField(null=True)

    # what is seen, written by the leader's watch
    state = models.CharField(max_length=12, default="unknown", db_index=True)
    state_since = models.DateTimeField()
    reason = models.CharField(max_length=12, default="silent")
    detail = models.CharField(max_length=300, default="")
    votes = models.JSONField(default=dict)
    flapping = models.BooleanField(default=False)
    memory = models.JSONField(default=dict)  # of `decision.Memory`: what a new leader goes on from

    defined_at = models.DateTimeField()  # its check began; the start period counts from here
    definition = models.BigIntegerField(default=1)  # grows with every change of what the vantage points do
    created_by = models.CharField(max_length=160, default="")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """One trouble, from its beginning to its end. `active_key` is the service's id until it is resolved, then NULL."""

    id = models.BigAutoField(primary_key=True)
    service = models.ForeignKey(Service, on_delete=models.SET_NULL, null=True, related_name="alerts")
    service_name = models.CharField(max_length=120)
    active_key = models.BigIntegerField(unique=True, null=True)
    severity = models.CharField(max_length=10)
    status = models.CharField(max_length=12, choices=AlertStatus.choices, default=AlertStatus.OPEN, db_index=True)
    detail = models.CharField(max_length=300, default="")
    affected = models.JSONField(default=list)  # names of services that speak through this alert
    opened_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=160, default="")
    note = models.CharField(max_length=500, default="")
    resolved_at = models.DateTimeField(null=True)
    resolution = models.CharField(max_length=12, default="")  # recovered | maintenance | deleted | grouped
    told_as = models.CharField(max_length=64, default="", db_index=True)  # when it was told before it had a row
    grouped_under = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="+")
    revision = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.service_name} ({self.status})"


class Silence(models.Model):
    """Nobody is told of matching alerts until `ends_at`; they are opened and shown all the same."""

    id = models.BigAutoField(primary_key=True)
    pattern = models.CharField(max_length=120)  # of service names; `*` stands for anything
    reason = models.CharField(max_length=300)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(db_index=True)
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return f"{self.pattern} until {self.ends_at:%Y-%m-%d %H:%M}"


class Notice(models.Model):
    """That one alert was opened or resolved, to be told over one channel. Kept until sent or given up."""

    id = models.BigAutoField(primary_key=True)
    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=10)  # opened | resolved
    channel = models.CharField(max_length=10)  # webhook | mail
    status = models.CharField(max_length=10, choices=NoticeStatus.choices, default=NoticeStatus.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(null=True)  # NULL once it is sent or given up
    detail = models.CharField(max_length=200, default="")
    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("alert", "kind", "channel"), name="services_notice_once")]
        indexes = [models.Index(fields=("next_at",), name="services_notice_due")]

    def __str__(self) -> str:
        return f"{self.kind} of alert {self.alert_id} by {self.channel}"


class RemedyRun(models.Model):
    """One try to mend a service. `active_key` is the service's id while it runs: never two at once."""

    id = models.BigAutoField(primary_key=True)
    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="remedy_runs")
    active_key = models.BigIntegerField(unique=True, null=True)
    type = models.CharField(max_length=16)
    status = models.CharField(max_length=10, choices=RemedyStatus.choices, default=RemedyStatus.RUNNING)
    reason = models.CharField(max_length=300, default="")
    detail = models.CharField(max_length=300, default="")
    deployment_id = models.BigIntegerField(null=True)  # what it waits for
    task_id = models.BigIntegerField(null=True)
    started_at = models.DateTimeField()
    deadline_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        indexes = [models.Index(fields=("service", "started_at"), name="services_remedy_service")]

    def __str__(self) -> str:
        return f"{self.type} for {self.service} ({self.status})"


class CheckSpan(models.Model):
    """A row of checks of one vantage point that all came out the same, at most a minute long."""

    pk = models.CompositePrimaryKey("service_id", "from_us", "node")
    service_id = models.BigIntegerField()
    from_us = models.BigIntegerField()
    node = models.CharField(max_length=64)
    at_us = models.BigIntegerField()  # of the last check in it
    outcome = models.CharField(max_length=8)  # passing | warning | failing
    checks = models.PositiveIntegerField()
    latency_ms = models.FloatField(null=True)  # mean
    latency_ms_max = models.FloatField(null=True)
    detail = models.CharField(max_length=300)

    class Meta:
        indexes = [models.Index(fields=("at_us",), name="services_checkspan_age")]

    def __str__(self) -> str:
        return f"service {self.service_id} at {self.node}: {self.outcome} x {self.checks}"


class Beat(models.Model):
    """The last heartbeat of a service that must send them."""

    service_id = models.BigIntegerField(primary_key=True)
    at_us = models.BigIntegerField()
    ok = models.BooleanField()
    detail = models.CharField(max_length=300)

    def __str__(self) -> str:
        return f"service {self.service_id} at {self.at_us}"

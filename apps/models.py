"""The application noun: what somebody wants to run, and its configuration over time.

Owns the rows only. `apps` knows nothing of releases or instances: a wish for those layers travels as data
(`desired_release`, `desired_state`, `instances`). Observed facts are never written here by those layers but through
the verbs of `services.py`.
"""

from __future__ import annotations

from django.db import models

from accounts.models import Org


class DesiredState(models.TextChoices):
    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class App(models.Model):
    id = models.BigAutoField(primary_key=True)
    org = models.ForeignKey(Org, on_delete=models.PROTECT, related_name="apps")
    name = models.CharField(max_length=63)
    description = models.CharField(max_length=2000, default="", blank=True)
    hostname = models.CharField(max_length=130, unique=True)  # first label of its URL, unique on the platform

    # desired, written by people
    desired_state = models.CharField(max_length=16, choices=DesiredState.choices, default=DesiredState.RUNNING)
    desired_release = models.PositiveIntegerField(null=True)  # the number of a release of this app
    deploy_kind = models.CharField(max_length=16, default="deploy")  # why desired_release is what it is
    deploy_cause = models.CharField(max_length=200, default="")
    deploy_serial = models.PositiveIntegerField(default=0)  # grows with each wish for a (re)deployment
    deploy_request = models.CharField(max_length=64, default="", db_default="")  # the request id of the newest wish
    instances = models.PositiveIntegerField(default=1)  # of the process type web
    process_counts = models.JSONField(default=dict)  # of the other types: {"worker": 2}
    process_types = models.JSONField(null=True)  # types of the wished release; None: nobody has said
    other_instances = models.PositiveIntegerField(default=0)  # of all types but web, as a quota counts them
    other_memory_mb = models.PositiveIntegerField(default=0)
    singleton = models.BooleanField(default=False)
    runtime = models.CharField(max_length=16, default="process")
    strategy = models.JSONField(default=dict)
    placement = models.JSONField(default=dict)
    volume_node = models.CharField(max_length=64, default="", db_default="")  # of its volumes; empty: none
    traffic = models.JSONField(default=dict)  # what the ingress does for it: stickiness, limits
    domains = models.JSONField(default=list)
    served_domains = models.JSONField(null=True)  # those of `domains` that are proven; None is none
    labels = models.JSONField(default=dict)
    maintenance = models.BooleanField(default=False)
    freeze = models.JSONField(default=dict)  # {"reason", "until", "by", "at"}: no deployments; empty: none

    # the current configuration, also frozen as ConfigRevision `config_number`
    config_number = models.PositiveIntegerField(default=1)
    memory_mb = models.PositiveIntegerField(default=512)
    cpu = models.FloatField(default=0.5)
    cpu_limit = models.FloatField(null=True)
    health_check = models.JSONField(default=dict)
    restart_policy = models.CharField(max_length=16, default="always")
    stop_timeout_s = models.FloatField(default=10.0)
    process_settings = models.JSONField(default=dict)  # what types have of their own; see `apps.processes`

    # observed, written by the leader's controller
    status = models.CharField(max_length=16, default="created")

    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("org", "name"), name="apps_app_name_once_in_org")]
        indexes = [models.Index(fields=("org", "status"), name="apps_app_org_status")]

    def __str__(self) -> str:
        return self.name


class ConfigRevision(models.Model):
    """One immutable configuration of an app: everything but code that shapes a running instance.

    `env` is sealed as a whole (a plain value today may be a secret tomorrow); `secret_keys` names the write-only ones.
    """

    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="config_revisions")
    number = models.PositiveIntegerField()
    env = models.TextField()
    secret_keys = models.JSONField(default=list)
    memory_mb = models.PositiveIntegerField()
    cpu = models.FloatField()
    cpu_limit = models.FloatField(null=True)
    health_check = models.JSONField(default=dict)
    restart_policy = models.CharField(max_length=16)
    stop_timeout_s = models.FloatField()
    process_settings = models.JSONField(default=dict)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=160)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("app", "number"), name="apps_config_number_once")]

    def __str__(self) -> str:
        return f"{self.app} configuration {self.number}"


class Domain(models.Model):
    """A custom domain, unique on the platform; served while `verified_at` is set (`domain_proof` says when)."""

    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="custom_domains")
    name = models.CharField(max_length=253, unique=True)
    verified_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True)  # proven, but the record is gone since then
    problem = models.CharField(max_length=300, default="", db_default="")  # what the last look found instead
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name

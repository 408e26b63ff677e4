"""Nodes, deployments, instances: what runs where, and what should.

Owns the control-plane rows only; telemetry rows are in `telemetry/models.py`. Desired columns are written by the
leader, observed ones by what the agent reports. A replacement is a new row in the same slot.
"""

from __future__ import annotations

from django.db import models

from apps.models import App
from instances.cron.models import CronEntry, CronRun
from instances.exec.models import ExecSession
from instances.states import DeploymentStatus, InstanceStatus, NodeStatus
from instances.tasks.models import Task
from instances.telemetry.models import (
    HostSample,
    LatestSample,
    LogArrival,
    LogCounter,
    LogLine,
    LogOffset,
    PlatformSample,
    RequestOffset,
    RequestSample,
    Sample,
)
from instances.volumes.models import Volume
from instances.volumes.snapshots.models import VolumeRestore, VolumeSnapshot
from releases.models import Release

__all__ = [
    "CronEntry",
    "CronRun",
    "Deployment",
    "ExecSession",
    "HostSample",
    "Instance",
    "LatestSample",
    "LogArrival",
    "LogCounter",
    "LogLine",
    "LogOffset",
    "Node",
    "PlatformSample",
    "RequestOffset",
    "RequestSample",
    "Sample",
    "Task",
    "Volume",
    "VolumeRestore",
    "VolumeSnapshot",
]  # fmt: skip


class Node(models.Model):
    """A host slot that runs instances. `facts` is `agent.protocol.NodeFacts` as the agent sent it."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=64, unique=True)  # "<host>-<port>"
    address = models.CharField(max_length=64)
    status = models.CharField(max_length=16, choices=NodeStatus.choices, default=NodeStatus.JOINING)
    draining = models.BooleanField(default=False)  # desired; survives being lost
    facts = models.JSONField(default=dict)
    labels = models.JSONField(default=dict)
    cpu_count = models.PositiveIntegerField(default=0)
    memory_mb = models.PositiveIntegerField(default=0)
    incarnation = models.BigIntegerField(default=0)  # of the agent that reported last
    ingress = models.BooleanField(default=False)
    status_since = models.DateTimeField()
    created_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    def __str__(self) -> str:
        return self.name


class Deployment(models.Model):
    """One rollout of a wish: a release, a scale, a restart. At most one is active per app (`active_key`)."""

    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="deployments")
    active_key = models.BigIntegerField(unique=True, null=True)  # the app's id while active, else NULL
    kind = models.CharField(max_length=16)  # deploy | rollback | config | scale | restart | start | stop
    serial = models.PositiveIntegerField()  # App.deploy_serial that it fulfils
    request_id = models.CharField(max_length=64, default="", db_default="")  # of the wish; agents go on under it
    release = models.ForeignKey(Release, on_delete=models.CASCADE, null=True, related_name="deployments")
    previous_release = models.ForeignKey(Release, on_delete=models.CASCADE, null=True, related_name="+")
    desired_instances = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=DeploymentStatus.choices, default=DeploymentStatus.PENDING)
    reason = models.CharField(max_length=300, default="")
    strategy = models.JSONField(default=dict)  # frozen at its start
    steps = models.JSONField(default=list)  # [{"at", "what", "reason", "instance_id"}], bounded
    error_code = models.CharField(max_length=64, default="")
    error_detail = models.CharField(max_length=2000, default="")
    evidence = models.JSONField(default=dict)  # of the instance that failed it
    floor = models.BigIntegerField(default=0)  # instances of an earlier deployment than this are replaced (restart)
    previous_floor = models.BigIntegerField(default=0)  # the floor that belongs to previous_release
    progress = models.IntegerField(null=True)  # the highest measure of closeness to its end so far
    first = models.BigIntegerField(default=0)  # the deployment whose rollout this one carries on (scaling), else 0

    # what has happened in its phases; whoever leads goes on from there
    paused_at = models.DateTimeField(null=True)
    baking_since = models.DateTimeField(null=True)  # the new release is ready beside the old one
    promoted_at = models.DateTimeField(null=True)  # it may take over: by hand, or because nothing spoke against it
    new_percent = models.PositiveSmallIntegerField(null=True)  # of requests to what it brings; `rollout.traffic`
    warm_until = models.DateTimeField(null=True)  # the old side is kept, without requests
    comparison = models.JSONField(default=dict)  # what both sides of a canary answered, when it was decided

    prepares = models.BooleanField(default=False)  # the release has a command that comes before its instances
    release_task = models.ForeignKey(Task, on_delete=models.SET_NULL, null=True, related_name="deployments")

    ledger = models.JSONField(null=True)  # requests while it ran; counted once the last of them are in
    ledger_due_at = models.DateTimeField(null=True)  # when that is
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    progress_at = models.DateTimeField()  # when it last got closer to its end
    finished_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        indexes = [
            models.Index(fields=("app", "id"), name="instances_deployment_app"),
            models.Index(fields=("ledger_due_at",), name="instances_deployment_ledger"),
            models.Index(fields=("new_percent",), name="instances_deployment_split"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.app}"


class Instance(models.Model):
    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="instance_rows")
    slot = models.PositiveIntegerField()
    release = models.ForeignKey(Release, on_delete=models.CASCADE, related_name="instances")
    deployment = models.ForeignKey(Deployment, on_delete=models.SET_NULL, null=True, related_name="instances")
    process_type = models.CharField(max_length=32, default="web")
    task = models.OneToOneField(Task, on_delete=models.CASCADE, null=True, related_name="instance")  # that it runs
    node = models.ForeignKey(Node, on_delete=models.PROTECT, null=True, related_name="instances")
    memory_mb = models.PositiveIntegerField()
    cpu = models.FloatField()

    # desired, written by the leader
    desired = models.CharField(max_length=8, default="run")  # run | stop | remove (dealt with: ended, or replaced)
    attempt = models.PositiveIntegerField(
        default=0
    )  # earlier instances of the slot, in a row, that failed or were lost
    generation = models.PositiveIntegerField(default=0)  # in-place restarts asked for
    reason = models.CharField(max_length=300, default="")  # why it exists, and later why it is to stop
    placement = models.JSONField(default=dict)  # the verdict per node that put it there
    request_id = models.CharField(max_length=64, default="", db_default="")  # that last changed what is wanted of it

    # observed, written from the agent's reports
    drained_by = models.JSONField(default=dict)  # ingress node → what it was drained for ("stop:0", see draining)
    on_node = models.BooleanField(default=False)  # its node may still have something of it: it stays in the assignments
    status = models.CharField(
        max_length=16, choices=InstanceStatus.choices, default=InstanceStatus.PENDING, db_index=True
    )
    health = models.CharField(max_length=16, default="unknown")
    observed_seq = models.BigIntegerField(default=0)
    observed_incarnation = models.BigIntegerField(default=0)
    observed_generation = models.PositiveIntegerField(default=0)
    restarts = models.PositiveIntegerField(default=0)
    address = models.CharField(max_length=80, default="")  # "host:port"
    handle = models.JSONField(default=dict)
    last_exit = models.JSONField(null=True)
    last_probe = models.JSONField(null=True)
    detail = models.CharField(max_length=500, default="")
    history = models.JSONField(default=list)  # the last changes of status and health, bounded
    started_at = models.DateTimeField(null=True)
    healthy_at = models.DateTimeField(null=True)  # for the first time
    healthy_since = models.DateTimeField(null=True)
    crashes = models.PositiveIntegerField(default=0)  # ends of its process that nobody asked for, once it was healthy
    next_start_at = models.DateTimeField(null=True)

    created_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        indexes = [
            models.Index(fields=("app", "status"), name="instances_instance_app"),
            models.Index(fields=("app", "desired"), name="instances_instance_wanted"),
            models.Index(fields=("node", "status"), name="instances_instance_node"),
            models.Index(fields=("node", "on_node"), name="instances_instance_listed"),
        ]

    def __str__(self) -> str:
        return f"{self.app}.{self.slot} ({self.id})"

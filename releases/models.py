"""Artifacts, builds, releases: how code gets from an upload to something that can run.

Owns the rows only. A release is artifact + process types + configuration revision, immutable: rolling back restores
all of it. The Build row with its lease is the truth about a build, the broker a doorbell.
"""

from __future__ import annotations

from django.db import models

from accounts.models import Org
from apps.models import App, ConfigRevision
from releases.states import BuildStatus


class Artifact(models.Model):
    """Bytes in content-addressed storage: uploads and the packages that builds make of them."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    size = models.BigIntegerField()
    media_type = models.CharField(max_length=64)
    kind = models.CharField(max_length=16)  # upload | package
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:12]}"


class Build(models.Model):
    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="builds")
    version = models.CharField(max_length=64)
    # "<app>:<version>" while this build holds its version, NULL once it failed or was cancelled (MySQL has no
    # partial unique index)
    version_key = models.CharField(max_length=100, unique=True, null=True)
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="builds")
    deploy = models.BooleanField(default=True)
    status = models.CharField(max_length=16, choices=BuildStatus.choices, default=BuildStatus.QUEUED, db_index=True)
    cancel_requested = models.BooleanField(default=False)
    attempt = models.PositiveIntegerField(default=0)
    worker = models.CharField(max_length=100, default="")
    lease_token = models.CharField(max_length=64, default="")  # sha256 of the attempt's token
    lease_until = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)
    builder = models.CharField(max_length=16, default="")
    image = models.CharField(max_length=500, default="")  # pinned by digest, where the release is an image
    steps = models.JSONField(default=list)
    error_code = models.CharField(max_length=64, default="")
    error_detail = models.CharField(max_length=2000, default="")
    release_number = models.PositiveIntegerField(null=True)
    created_by = models.CharField(max_length=160)
    request_id = models.CharField(max_length=64, default="", db_default="")  # of the upload, for the worker
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=1)

    class Meta:
        indexes = [models.Index(fields=("app", "id"), name="releases_build_app")]

    def __str__(self) -> str:
        return f"{self.app} {self.version}"


class Release(models.Model):
    id = models.BigAutoField(primary_key=True)
    app = models.ForeignKey(App, on_delete=models.CASCADE, related_name="releases")
    number = models.PositiveIntegerField()
    version = models.CharField(max_length=64)
    build = models.ForeignKey(Build, on_delete=models.PROTECT, related_name="releases")
    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="+")
    package = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="+")
    process_types = models.JSONField()
    config = models.ForeignKey(ConfigRevision, on_delete=models.PROTECT, related_name="releases")
    reason = models.CharField(max_length=200)
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("app", "number"), name="releases_release_number_once")]
        indexes = [models.Index(fields=("app", "version", "number"), name="releases_release_version")]

    def __str__(self) -> str:
        return f"{self.app} #{self.number} ({self.version})"


class RegistryCredential(models.Model):
    """How an org is known to one private image registry; `password` is sealed."""

    id = models.BigAutoField(primary_key=True)
    org = models.ForeignKey(Org, on_delete=models.CASCADE, related_name="registries")
    registry = models.CharField(max_length=260)
    username = models.CharField(max_length=200)
    password = models.TextField()
    created_by = models.CharField(max_length=160)
    created_at = models.DateTimeField()
    revision = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.UniqueConstraint(fields=("org", "registry"), name="releases_registry_once")]

    def __str__(self) -> str:
        return f"{self.username} at {self.registry}"


class BuildLogLine(models.Model):
    """Telemetry: what a build printed. (build_id, seq) is unique, so that a repeated batch changes nothing."""

    pk = models.CompositePrimaryKey("build_id", "seq")
    build_id = models.BigIntegerField()
    seq = models.BigIntegerField()
    at_us = models.BigIntegerField()
    stream = models.PositiveSmallIntegerField()
    line = models.TextField()

    def __str__(self) -> str:
        return self.line

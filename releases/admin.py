"""Builds, releases and artifacts in the console, to look at."""

from __future__ import annotations

from omni.console import register
from releases.models import Artifact, Build, RegistryCredential, Release

register(
    Build,
    columns=("id", "app", "version", "status", "attempt", "worker", "created_by", "created_at", "finished_at"),
    filters=("status", "builder"),
    search=("version", "app__name", "error_code"),
    related=("app",),
    hidden=("lease_token", "version_key"),
)
register(
    Release,
    columns=("app", "number", "version", "reason", "created_by", "created_at"),
    search=("version", "app__name"),
    related=("app",),
)
register(
    Artifact, columns=("sha256", "kind", "size", "media_type", "created_at"), filters=("kind",), search=("sha256",)
)
register(
    RegistryCredential, columns=("registry", "org", "username", "created_by", "created_at"), related=("org",),
    hidden=("password",),
)  # fmt: skip

"""Releases: (app, number) = version + artifact + package + process types + configuration, never changed once inserted.

Owns the numbering. A configuration change and a rollback insert the next number over older code (DECISIONS 23).
`app` must have been read with its row locked in the same transaction, so that numbers come one after the other.
"""

from __future__ import annotations

from django.db.models import Max

from apps import services as app_services
from apps.models import App, ConfigRevision
from consensus.gate import Transaction
from omni.kernel.errors import Conflict, NotFound
from releases.models import Build, Release


def insert_release(
    tx: Transaction,
    app: App,
    *,
    build: Build,
    package_sha256: str,
    process_types: dict[str, str],
    config: ConfigRevision,
    reason: str,
    created_by: str,
) -> Release:
    """The next number of the app. The unique constraint refuses a second writer of the same one."""
    last = Release.objects.filter(app=app).aggregate(last=Max("number"))["last"] or 0
    release = Release.objects.create(
        app=app,
        number=last + 1,
        version=build.version,
        build=build,
        artifact_id=build.artifact_id,
        package_id=package_sha256,
        process_types=process_types,
        config=config,
        reason=reason[:200],
        created_by=created_by,
        created_at=tx.at,
    )
    tx.record(
        "release.created",
        "release",
        release.pk,
        org_id=app.org_id,
        app_id=app.pk,
        change={"number": release.number, "version": release.version, "config": config.number, "reason": reason},
    )
    return release


def release_for(app: App, *, version: str | None = None, number: int | None = None) -> Release:
    """The release of that number, or the newest of that version. Raises NotFound."""
    found = Release.objects.filter(app=app).select_related("config", "build", "package", "artifact")
    if number is not None:
        release = found.filter(number=number).first()
        what = f"release {number}"
    else:
        # compared again here: the database may hold `v1` and `V1` to be the same
        candidates = found.filter(version=version).order_by("-number")[:2]
        release = next((row for row in candidates if row.version == version), None)
        what = f"release of version {version}"
    if release is None:
        raise NotFound(f"{app.name} has no {what}.", next=f"GET /app/{app.pk}/releases")
    return release


def previous_release(app: App) -> Release:
    """The release before the desired one: the default of a rollback.

    `instances` knows what really ran and passes its own answer; this is for when it knows nothing.
    """
    older = Release.objects.filter(app=app, number__lt=app.desired_release or 0).select_related("config", "build")
    found = older.order_by("-number").first()
    if found is None:
        raise Conflict(
            f"{app.name} has no earlier release to go back to.",
            code="nothing_to_roll_back",
            next=f"GET /app/{app.pk}/releases",
        )
    return found


def change_configuration(tx: Transaction, app: App, config: ConfigRevision) -> Release | None:
    """The desired release again (else the newest) under a new configuration; None before the first release.

    The caller wishes for its deployment.
    """
    base = _base(app)
    if base is None or base.config_id == config.pk:
        return base
    return _again(tx, app, base, config, f"configuration {config.number}")


def deploy_version(tx: Transaction, app: App, version: str) -> Release:
    """The version's code with the current configuration; a new number only if no release is exactly that."""
    newest = release_for(app, version=version)
    config = app_services.current_revision(app)
    if newest.config_id == config.pk:
        return newest
    return _again(tx, app, newest, config, f"deploy of {version} with configuration {config.number}")


def rollback_release(tx: Transaction, app: App, *, version: str | None = None, number: int | None = None) -> Release:
    """Code *and* configuration of an older release, as a new configuration revision and a new number.

    Without version and number: the one before the desired one. The caller wishes for its deployment (kind `rollback`).
    """
    if version is None and number is None:
        target = previous_release(app)
    else:
        target = release_for(app, version=version, number=number)
    config = app_services.restore_configuration(tx, app, target.config)
    return _again(tx, app, target, config, f"rollback to {target.version} (release {target.number})")


def _base(app: App) -> Release | None:
    releases = Release.objects.filter(app=app).select_related("build")
    if app.desired_release is not None:
        return releases.filter(number=app.desired_release).first()
    return releases.order_by("-number").first()


def _again(tx: Transaction, app: App, base: Release, config: ConfigRevision, reason: str) -> Release:
    return insert_release(
        tx,
        app,
        build=base.build,
        package_sha256=base.package_id,
        process_types=base.process_types,
        config=config,
        reason=reason,
        created_by=tx.actor.label,
    )

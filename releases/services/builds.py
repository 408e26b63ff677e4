"""The life of a build, along the edges of `states.BUILD`.

Owns claim, lease, finish, cancel and loss. The row is the truth: a worker proves by its attempt's token that the build
is still its own, a repeated call changes nothing, and a cancel wins over a success that comes after it. Leases are
judged by the relay on its monotonic clock (`releases.relay`); a wall clock that jumps takes no build away.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

from django.conf import settings
from django.db.models import F

from accounts.models import Org
from apps import freeze
from apps import services as app_services
from apps.models import App, DesiredState
from consensus.gate import Transaction
from omni.kernel import measures
from omni.kernel.errors import Conflict, InvalidInput
from omni.kernel.transitions import move
from releases import build_log
from releases.copies import stored_size
from releases.models import Build
from releases.services.releases import insert_release
from releases.services.uploads import keep_artifact
from releases.states import API, BUILD, LEADER, WORKER, BuildStatus

PACKAGE_MEDIA_TYPE = "application/x-tar"
_RENEW_BELOW = 0.6  # share of the lease that is left when a heartbeat is worth a write
_DEADLINE_MARGIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """A build and the one token by which its attempt speaks; only the token's digest is kept."""

    build: Build
    token: str


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a worker says at the end."""

    outcome: Literal["succeeded", "failed", "cancelled"]
    builder: str = ""
    package_sha256: str = ""
    package_size: int = 0
    process_types: dict[str, str] = field(default_factory=dict)
    error_code: str = ""
    error_detail: str = ""
    image: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Renewal:
    """The answer to a heartbeat, and whether it has to be written."""

    cancel: bool
    write: bool


def lease_lost() -> Conflict:
    return Conflict("This attempt no longer owns the build.", code="lease_lost", next="stop working on it")


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def claim_build(tx: Transaction, *, build_id: int, worker: str) -> Claimed:
    """queued → building for one worker. Raises Conflict `not_claimable`, which tells the worker to do nothing."""
    build = Build.objects.select_related("app", "artifact").filter(pk=build_id).first()
    if build is None or build.status != BuildStatus.QUEUED or build.app.desired_state == DesiredState.DELETED:
        raise _not_claimable("gone" if build is None else build.status)
    _check_builds_at_once(build.app)
    token = secrets.token_urlsafe(32)
    limits, timings = settings.CONFIG.limits, settings.CONFIG.timings
    move(
        Build,
        build.pk,
        table=BUILD,
        to=BuildStatus.BUILDING,
        owner=WORKER,
        match={"attempt": build.attempt},
        attempt=build.attempt + 1,
        worker=worker[:100],
        lease_token=digest_of(token),
        lease_until=tx.at + dt.timedelta(seconds=timings.build_lease_s),
        deadline_at=tx.at + dt.timedelta(seconds=limits.build_wall_s + _DEADLINE_MARGIN_S),
        started_at=build.started_at or tx.at,
        steps=[],
    )
    _record(tx, "build.claimed", build, {"worker": worker, "attempt": build.attempt + 1})
    if build.started_at is None:
        waited_s = (tx.at - build.created_at).total_seconds()
        tx.after_commit.append(lambda: measures.build_wait_seconds.observe(waited_s))
    return Claimed(_reread(build), token)


def check_attempt(build_id: int, token: str) -> Build:
    """The build, if `token` is of its latest attempt. Raises Conflict `lease_lost`."""
    build = Build.objects.select_related("app").filter(pk=build_id).first()
    if build is None or not build.lease_token or not hmac.compare_digest(build.lease_token, digest_of(token)):
        raise lease_lost()
    return build


def renewal_of(build: Build, now: dt.datetime, builder: str, steps: list[dict[str, Any]]) -> Renewal:
    """What a heartbeat of the build's owner amounts to; most need no write."""
    if build.status != BuildStatus.BUILDING or build.lease_until is None:
        raise lease_lost()
    left = (build.lease_until - now).total_seconds() / settings.CONFIG.timings.build_lease_s
    changed = builder != build.builder or steps != build.steps
    return Renewal(cancel=build.cancel_requested, write=changed or not _RENEW_BELOW < left <= 1.0)


def renew_lease(tx: Transaction, *, build_id: int, token: str, builder: str, steps: list[dict[str, Any]]) -> Renewal:
    """Extend the lease and note the steps. Raises Conflict `lease_lost`."""
    build = check_attempt(build_id, token)
    renewal = renewal_of(build, tx.at, builder, steps)
    until = tx.at + dt.timedelta(seconds=settings.CONFIG.timings.build_lease_s)
    updated = Build.objects.filter(pk=build.pk, status=BuildStatus.BUILDING, lease_token=build.lease_token).update(
        lease_until=until, builder=builder, steps=steps, revision=F("revision") + 1
    )
    if updated != 1:
        raise lease_lost()
    running = [step["name"] for step in steps if step.get("status") == "running"]
    _record(tx, "build.progressed", build, {"running": running, "builder": builder})
    return renewal


def finish_build(tx: Transaction, *, build_id: int, token: str, result: BuildResult) -> Build:
    """building → succeeded | failed | cancelled, once per attempt; a repetition finds what the first left.

    Success inserts the release and, if the upload asked for it, wishes for its deployment. A requested cancel and the
    deletion of the app win over a late success.
    """
    build = check_attempt(build_id, token)
    if build.status != BuildStatus.BUILDING:
        return build
    app = App.objects.select_for_update().get(pk=build.app_id)
    build = check_attempt(build_id, token)  # a cancel may have come while we waited for the app's row
    if app.desired_state == DesiredState.DELETED or build.cancel_requested or result.outcome == "cancelled":
        _end(tx, build, BuildStatus.CANCELLED, result, "cancelled", "The build was cancelled.")
    elif result.outcome == "failed":
        _end(tx, build, BuildStatus.FAILED, result, result.error_code or "build_failed", result.error_detail)
    else:
        _succeed(tx, app, build, result)
    return _reread(build)


def cancel_build(tx: Transaction, *, build: Build) -> Build:
    """A queued build is cancelled at once; a building one hears of it with its next heartbeat, within seconds."""
    if build.status == BuildStatus.CANCELLED or (build.cancel_requested and build.status == BuildStatus.BUILDING):
        return build
    if build.status == BuildStatus.QUEUED:
        move(
            Build,
            build.pk,
            table=BUILD,
            to=BuildStatus.CANCELLED,
            owner=API,
            version_key=None,
            finished_at=tx.at,
            error_code="cancelled",
            error_detail=f"Cancelled by {tx.actor.label} before it started."[:2000],
        )
        _record(tx, "build.cancelled", build, {"while": "queued"})
        return _reread(build)
    updated = Build.objects.filter(pk=build.pk, status=BuildStatus.BUILDING).update(
        cancel_requested=True, revision=F("revision") + 1
    )
    if updated != 1:
        raise Conflict(f"The build is {_reread(build).status}; it can no longer be cancelled.", code="build_ended")
    _record(tx, "build.cancel_requested", build, {"worker": build.worker})
    return _reread(build)


def declare_lost(
    tx: Transaction,
    *,
    build_id: int,
    attempt: int,
    lease_until: dt.datetime | None,
    reason: Literal["worker_lost", "build_deadline"] = "worker_lost",
) -> str:
    """The leader gives up on an attempt: building → lost → queued, failed (tries used up, deadline) or cancelled.

    `lease_until` is what the relay saw for a whole lease long; a renewal in between makes this do nothing.
    """
    build = Build.objects.select_related("app").filter(pk=build_id).first()
    if build is None or (build.status, build.attempt) != (BuildStatus.BUILDING, attempt):
        return "not lost"
    if reason == "worker_lost" and build.lease_until != lease_until:
        return "not lost"
    match = {"attempt": attempt, "lease_until": build.lease_until}
    move(Build, build.pk, table=BUILD, to=BuildStatus.LOST, owner=LEADER, match=match, lease_token="", lease_until=None)
    _record(tx, "build.lost", build, {"worker": build.worker, "attempt": attempt, "reason": reason})
    tries = settings.CONFIG.limits.build_attempts
    told = f"The worker {build.worker} was lost in attempt {attempt} of {tries}."
    tx.after_commit.append(lambda: build_log.note(build_id, attempt, told))
    if build.cancel_requested or build.app.desired_state == DesiredState.DELETED:
        to, code, detail = BuildStatus.CANCELLED, "cancelled", "The build was cancelled; its worker was lost."
    elif reason == "build_deadline":
        to, code, detail = BuildStatus.FAILED, "build_deadline", "The build was not done by its deadline."
    elif attempt >= tries:
        to, code, detail = BuildStatus.FAILED, "worker_lost", f"The worker was lost in each of {tries} attempts."
    else:
        move(Build, build.pk, table=BUILD, to=BuildStatus.QUEUED, owner=LEADER, source=BuildStatus.LOST, worker="")
        _record(tx, "build.requeued", build, {"attempts": attempt, "of": tries})
        return str(BuildStatus.QUEUED)
    ended: dict[str, Any] = {"version_key": None, "finished_at": tx.at, "error_code": code, "error_detail": detail}
    move(Build, build.pk, table=BUILD, to=to, owner=LEADER, source=BuildStatus.LOST, **ended)
    _record(tx, f"build.{to}", build, {"code": code})
    return str(to)


def _succeed(tx: Transaction, app: App, build: Build, result: BuildResult) -> None:
    if stored_size(result.package_sha256) != result.package_size:
        raise Conflict(
            "The package is not in the artifact store.", code="package_missing", next="PUT the package again"
        )
    if not result.process_types:
        raise InvalidInput("A release has at least one process type.", code="no_process_types")
    keep_artifact(
        tx,
        sha256=result.package_sha256,
        size=result.package_size,
        media_type=PACKAGE_MEDIA_TYPE,
        kind="package",
    )
    release = insert_release(
        tx,
        app,
        build=build,
        package_sha256=result.package_sha256,
        process_types=result.process_types,
        config=app_services.current_revision(app),
        reason=f"build {build.pk}",
        created_by=build.created_by,
    )
    _move_out(tx, build, BuildStatus.SUCCEEDED, result, release_number=release.number, image=result.image)
    _record(tx, "build.succeeded", build, {"release": release.number, "version": build.version})
    if build.deploy and not _overtaken(build) and not _held_up(tx, app, build, release.number):
        app_services.wish(tx, app, release_number=release.number, process_types=release.process_types, kind="deploy",
                          cause=f"build {build.pk}")  # fmt: skip


def _held_up(tx: Transaction, app: App, build: Build, number: int) -> bool:
    """A frozen app keeps the release for later: nobody is there to be told but the record."""
    frozen = freeze.in_force(app, tx.at)
    if frozen is not None:
        _record(tx, "release.not_deployed", build, {"release": number, "frozen": frozen["reason"]})
    return frozen is not None


def _overtaken(build: Build) -> bool:
    """A later upload was built faster and deployed: an older one does not push it aside."""
    later = Build.objects.filter(app_id=build.app_id, pk__gt=build.pk, deploy=True, status=BuildStatus.SUCCEEDED)
    return later.exists()


def _end(tx: Transaction, build: Build, to: BuildStatus, result: BuildResult, code: str, detail: str) -> None:
    _move_out(tx, build, to, result, version_key=None, error_code=code[:64], error_detail=detail[:2000])
    _record(tx, f"build.{to}", build, {"code": code, "version": build.version})


def _move_out(tx: Transaction, build: Build, to: BuildStatus, result: BuildResult, **values: Any) -> None:
    """The token stays with the row, so that the worker may repeat itself and send the last of its log."""
    move(
        Build,
        build.pk,
        table=BUILD,
        to=to,
        owner=WORKER,
        match={"lease_token": build.lease_token},
        builder=result.builder[:16],
        steps=result.steps,
        finished_at=tx.at,
        lease_until=None,
        **values,
    )
    if build.started_at is not None:
        took_s = (tx.at - build.started_at).total_seconds()
        tx.after_commit.append(lambda: measures.build_seconds.labels(str(to)).observe(took_s))


def _check_builds_at_once(app: App) -> None:
    if app.org.max_builds_at_once is None:
        return
    org = Org.objects.select_for_update().get(pk=app.org_id)  # two claims at once count one after the other
    running = Build.objects.filter(app__org_id=org.pk, status=BuildStatus.BUILDING).count()
    if org.max_builds_at_once is not None and running >= org.max_builds_at_once:
        raise _not_claimable(f"waiting: the org {org.name} runs {running} builds, which is its quota")


def _not_claimable(why: str) -> Conflict:
    return Conflict(f"The build cannot be claimed: it is {why}.", code="not_claimable")


def _reread(build: Build) -> Build:
    return Build.objects.select_related("app", "artifact").get(pk=build.pk)


def _record(tx: Transaction, kind: str, build: Build, change: dict[str, Any]) -> None:
    tx.record(kind, "build", build.pk, org_id=build.app.org_id, app_id=build.app_id, change=change)

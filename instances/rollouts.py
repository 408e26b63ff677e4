"""The verbs of deployments: open, cancel, pause, resume, promote.

Each is conditional on what the row says inside the gate, so that it means the same whoever leads and however often it
is repeated. What follows from it is the planner's business (`plan.phases`); nothing else is remembered anywhere.
"""

from __future__ import annotations

from typing import Any

from django.db.models import F

from apps import processes, strategy
from apps import services as app_services
from apps.models import App, DesiredState
from consensus.gate import Transaction
from instances import ledger, observe
from instances.models import Deployment, Instance
from instances.plan.model import CANCELLABLE, DeploymentView
from instances.plan.opening import TRIED, Opening, opening
from instances.plan.phases import SWITCHED
from instances.rollout.traffic import Split
from instances.states import API, DEPLOYMENT, LEADER, DeploymentStatus, InstanceStatus
from omni.kernel.errors import Conflict
from omni.kernel.transitions import move
from releases.models import Release

_UNDER_WAY = (DeploymentStatus.PENDING, DeploymentStatus.ROLLING)
_OPPOSITES = {"scale": "scale", "start": "stop", "stop": "start"}


def open_deployment(tx: Transaction, app: App) -> Deployment:
    """The deployment of the app's newest wish; a running one is superseded and its aim carried on or left."""
    Deployment.objects.select_for_update().filter(app=app).order_by("-id").first()
    last = observe.latest_deployment(app.pk)
    release = Release.objects.filter(app=app, number=app.desired_release or 0).first()
    opened = opening(
        last, app.deploy_kind, observe.release_view(release.pk) if release else None, observe.strategy_of(app.strategy),
        singleton=app.singleton, in_use=release is not None and _in_use(app, last, release),
    )  # fmt: skip
    supersede(tx, app, f"superseded by a newer wish ({app.deploy_kind})")
    _end_side(tx, app, last, opened, release)
    row = Deployment.objects.create(
        app=app, active_key=app.pk, kind=app.deploy_kind, serial=app.deploy_serial, release=release,
        request_id=app.deploy_request,
        previous_release_id=opened.previous.id if opened.previous else None, previous_floor=opened.previous_floor,
        floor=opened.floor or 0, first=opened.first,
        desired_instances=_count(app),
        strategy=strategy.whole(opened.strategy), reason=app.deploy_cause[:300], created_by=tx.actor.label,
        created_at=tx.at, progress_at=tx.at, paused_at=tx.at if opened.paused else None,
        promoted_at=tx.at if opened.promoted else None, baking_since=opened.baking_since,
        new_percent=opened.new_percent, **_preparation(app, last, opened, release),
    )  # fmt: skip
    if opened.floor is None:  # only what this one makes is young enough
        row.floor = row.pk
        Deployment.objects.filter(pk=row.pk).update(floor=row.pk)
    change = {"kind": row.kind, "release": app.desired_release, "serial": row.serial}
    if opened.first:
        change["carries_on"] = opened.first
    tx.record("deployment.created", "deployment", row.pk, org_id=app.org_id, app_id=app.pk, change=change)
    return row


def _preparation(app: App, last: DeploymentView | None, opened: Opening, release: Release | None) -> dict[str, Any]:
    """Whether the release's own command comes first: for what nobody has seen run. A scaling carries it on."""
    if opened.first and last is not None:
        found = Deployment.objects.filter(pk=last.id).values("prepares", "release_task_id").get()
        return dict(found) if last.preparing else {}
    tried = app.deploy_kind in TRIED and release is not None and processes.RELEASE in release.process_types
    if not tried or release is None:
        return {}
    return {"prepares": opened.previous is None or opened.previous.id != release.pk}


def _count(app: App) -> int:
    """How many instances of all process types are to run."""
    if app.desired_state != DesiredState.RUNNING:
        return 0
    return sum(processes.wanted(app.instances, app.process_counts, app.process_types).values())


def _in_use(app: App, last: DeploymentView | None, release: Release) -> bool:
    """Whether instances of the release take requests now."""
    split = _split(last)
    rows = Instance.objects.filter(
        app=app, release=release, process_type=processes.WEB, desired="run", status=InstanceStatus.RUNNING
    )
    made_by = rows.values_list("deployment_id", flat=True)
    return any(split is None or split.pool_of(release.pk, id_) is not None for id_ in made_by)


def _split(last: DeploymentView | None) -> Split | None:
    if last is None or last.release is None or last.new_percent is None:
        return None
    return Split(last.release.id, last.floor, last.new_percent)


def _end_side(tx: Transaction, app: App, last: DeploymentView | None, opened: Opening, release: Release | None) -> None:
    """Only the newest deployment tells releases apart: what the last one kept aside must not mix with the rest."""
    Deployment.objects.filter(app=app, new_percent__isnull=False).update(new_percent=None, revision=F("revision") + 1)
    split = _split(last)
    if split is None or opened.leaves is None:
        return
    for row in Instance.objects.filter(app=app, process_type=processes.WEB, desired="run").order_by("id"):
        new = split.brings(row.release_id, row.deployment_id)
        if new != (opened.leaves == "new") or (release is not None and row.release_id == release.pk):
            continue
        why = "the rollout that it stood aside for was superseded"
        Instance.objects.filter(pk=row.pk, desired="run").update(
            desired="stop", reason=why, revision=F("revision") + 1
        )  # fmt: skip
        tx.record("instance.stop_asked", "instance", row.pk, org_id=app.org_id, app_id=app.pk,
                  change={"slot": row.slot, "why": why})  # fmt: skip


def supersede(tx: Transaction, app: App, why: str) -> None:
    active = Deployment.objects.filter(active_key=app.pk).first()
    if active is None:
        return
    reverting = active.status == DeploymentStatus.REVERTING
    to = DeploymentStatus.REVERTED if reverting else DeploymentStatus.CANCELLED
    move(Deployment, active.pk, table=DEPLOYMENT, to=to, owner=LEADER if reverting else API, active_key=None,
         finished_at=tx.at, ledger_due_at=ledger.due(tx.at), reason=why[:300])  # fmt: skip
    tx.record(f"deployment.{to}", "deployment", active.pk, org_id=app.org_id, app_id=app.pk, change={"why": why})


def abandon_trial(tx: Transaction, app: App) -> None:
    """A release that has not been let take over yet does not come back by itself: what ran before is wished for."""
    last = observe.latest_deployment(app.pk)
    if last is None or not last.on_trial or last.previous is None:
        return
    release = Release.objects.select_related("config").get(pk=last.previous.id)
    app_services.restore_configuration(tx, app, release.config)
    app_services.wish(tx, app, release_number=release.number, process_types=release.process_types, kind="revert",
                      cause="its trial was stopped")  # fmt: skip


def refuse_on_trial(app: App) -> None:
    """For what would let a release on trial take over without a word."""
    last = observe.latest_deployment(app.pk)
    if last is not None and last.on_trial:
        raise Conflict(
            f"Deployment {last.id} tries another release beside the running one.", code="release_on_trial",
            next=f"POST /app/{app.pk}/deployments/{last.id}/promote, or …/cancel",
        )  # fmt: skip


def cancel_deployment(tx: Transaction, app: App, deployment: Deployment) -> Deployment:
    """Stop rolling; what ran before comes back by the same deployment (unless `auto_revert` is off)."""
    if not _rolls_out(deployment):
        raise Conflict(
            f"A deployment of kind {deployment.kind} is not cancelled but answered by its opposite.",
            code="not_cancellable", next=f"POST /app/{app.pk}/{_OPPOSITES.get(deployment.kind, 'scale')}",
        )  # fmt: skip
    move(Deployment, deployment.pk, table=DEPLOYMENT, to=DeploymentStatus.CANCELLED, owner=API, active_key=None,
         finished_at=tx.at, ledger_due_at=ledger.due(tx.at), reason=f"cancelled by {tx.actor.label}"[:300])  # fmt: skip
    tx.record("deployment.cancelled", "deployment", deployment.pk, org_id=app.org_id, app_id=app.pk)
    deployment.refresh_from_db()
    return deployment


def pause(tx: Transaction, app: App, deployment: Deployment) -> Deployment:
    """Nothing moves on until it is resumed: no deadline, no promotion. Evidence against the release still counts."""
    _refuse_ended(app, deployment)
    if deployment.strategy.get("type") == "recreate" or not _rolls_out(deployment):
        raise Conflict(
            "Nothing would serve between stop and start." if deployment.strategy.get("type") == "recreate"
            else f"A deployment of kind {deployment.kind} has nothing to hold back.",
            code="not_pausable", next=f"GET /app/{app.pk}/deployments/{deployment.pk}",
        )  # fmt: skip
    if deployment.paused_at is None:
        _change(tx, app, deployment, "deployment.paused", {"paused_at__isnull": True}, paused_at=tx.at)
    return deployment


def resume(tx: Transaction, app: App, deployment: Deployment) -> Deployment:
    """Go on, with a full deadline."""
    _refuse_ended(app, deployment)
    if deployment.paused_at is not None:
        _change(tx, app, deployment, "deployment.resumed", {"paused_at__isnull": False}, paused_at=None)
    return deployment


def promote(tx: Transaction, app: App, deployment: Deployment) -> Deployment:
    """The new release may take over: a canary rolls on, a green set is switched to as soon as all of it is ready."""
    _refuse_ended(app, deployment)
    if not observe.strategy_of(deployment.strategy).stepwise:
        raise Conflict(
            f"The strategy {deployment.strategy.get('type', 'rolling')} has no trial that could be ended.",
            code="nothing_to_promote", next=f"GET /app/{app.pk}/deployments/{deployment.pk}",
        )  # fmt: skip
    if deployment.paused_at is not None:
        raise Conflict(
            "The deployment is paused.", code="deployment_paused",
            next=f"POST /app/{app.pk}/deployments/{deployment.pk}/resume",
        )  # fmt: skip
    if deployment.promoted_at is None:
        extra: dict[str, Any] = {"new_percent": None} if deployment.strategy["type"] == "canary" else {}
        _change(tx, app, deployment, "deployment.promoted", {"promoted_at__isnull": True}, promoted_at=tx.at, **extra)
    return deployment


def _rolls_out(deployment: Deployment) -> bool:
    return deployment.kind in CANCELLABLE or bool(deployment.first)


def _refuse_ended(app: App, deployment: Deployment) -> None:
    if deployment.status in _UNDER_WAY:
        return
    back = f"POST /app/{app.pk}/rollback"
    raise Conflict(
        f"The deployment is {deployment.status}.", code="deployment_ended",
        next=back if deployment.status == DeploymentStatus.SUCCEEDED else f"GET /app/{app.pk}/deployments",
    )  # fmt: skip


def _change(
    tx: Transaction, app: App, deployment: Deployment, event: str, condition: dict[str, Any], **fields: Any
) -> None:
    """Along with a full deadline. Raises Conflict when the row has changed in between."""
    updated = Deployment.objects.filter(pk=deployment.pk, status__in=_UNDER_WAY, **condition).update(
        revision=F("revision") + 1, progress=None, progress_at=tx.at, **fields
    )
    if updated != 1:
        raise Conflict("The deployment has changed at the same time.", next="repeat the request")
    tx.record(event, "deployment", deployment.pk, org_id=app.org_id, app_id=app.pk,
              change={"by": tx.actor.label, "kind": deployment.kind})  # fmt: skip
    deployment.refresh_from_db()


def kept_warm(app_id: int, release_id: int) -> bool:
    """Whether instances of the release still stand by: those of the release before, while a rollout is under way or
    its old side is kept warm."""
    last = observe.latest_deployment(app_id)
    if last is None or last.previous is None or last.previous.id != release_id:
        return False
    return last.under_way or (last.status == DeploymentStatus.SUCCEEDED and last.new_percent == SWITCHED)

"""The verbs of deployments and instances: what people ask for, as rows that the controller then fulfils.

Each runs inside the gate on an app row that was read (and locked) there. A wish becomes a Deployment at once, so that
the answer can name it; a wish that a lower layer left as data (`App.deploy_serial`) becomes one by
`open_deployment`, which the controller calls.
"""

from __future__ import annotations

from typing import Any

from django.db.models import F

from apps import services as app_services
from apps.models import App, DesiredState
from consensus.gate import Transaction
from instances import observe, queries
from instances.models import Deployment, Instance, Node
from instances.plan.model import CANCELLABLE
from instances.preview import plan_now
from instances.rollout import STRATEGIES
from instances.states import (
    ACTIVE_DEPLOYMENT,
    API,
    DEPLOYMENT,
    LEADER,
    NODE,
    ON_NODE,
    DeploymentStatus,
    InstanceStatus,
    NodeStatus,
)
from omni.kernel.errors import Conflict, FieldError, InvalidInput
from omni.kernel.transitions import move
from releases import services as release_services
from releases.models import Release

__all__ = [
    "activate_node", "cancel_deployment", "delete", "deploy", "deploy_version", "drain_node", "open_deployment",
    "plan_now", "refuse_phases", "rescaled", "restart", "restart_instance", "rollback", "scale", "start", "stop",
    "stop_instance",
]  # fmt: skip


def deploy(tx: Transaction, app: App, release: Release, *, kind: str = "deploy", cause: str = "") -> Deployment:
    """Wish for `release` (kind deploy, rollback or config) and begin its deployment."""
    _check_strategy(app)
    app_services.wish(tx, app, release_number=release.number, kind=kind, cause=cause or tx.cause)
    return open_deployment(tx, app)


def deploy_version(tx: Transaction, app: App, version: str) -> Deployment:
    """The version's code with the current configuration (DECISIONS 23)."""
    return deploy(tx, app, release_services.deploy_version(tx, app, version))


def rollback(tx: Transaction, app: App, *, version: str | None = None, number: int | None = None) -> Deployment:
    """Code and configuration of `version` (its newest release), of release `number`, or of what ran before."""
    if version is None and number is None:
        number = queries.release_before(app.pk)
    release = release_services.rollback_release(tx, app, version=version, number=number)
    return deploy(tx, app, release, kind="rollback")


def rescaled(tx: Transaction, app: App) -> Deployment | None:
    """The deployment of a change that needs no new release: count, singleton, placement. None while nothing runs."""
    return _wish(tx, app, "scale")


def scale(tx: Transaction, app: App, count: int) -> Deployment | None:
    """None when nothing is deployed yet, the app is stopped, or the count is that already."""
    if count == app.instances:
        return None
    app_services.scale(tx, app, count)
    return _wish(tx, app, "scale")


def start(tx: Transaction, app: App) -> Deployment | None:
    if not app_services.set_desired_state(tx, app, DesiredState.RUNNING):
        return None
    return _wish(tx, app, "start")


def stop(tx: Transaction, app: App) -> Deployment | None:
    if not app_services.set_desired_state(tx, app, DesiredState.STOPPED):
        return None
    return _wish(tx, app, "stop")


def restart(tx: Transaction, app: App) -> Deployment:
    """Every instance is replaced, the new ones first, so that even a single one drops nothing."""
    if app.desired_state != DesiredState.RUNNING:
        raise Conflict(f"The app is {app.desired_state}.", code="not_running", next=f"POST /app/{app.pk}/start")
    deployment = _wish(tx, app, "restart")
    if deployment is None:
        raise Conflict(
            "Nothing is deployed yet.", code="nothing_deployed", next=f"POST /app/{app.pk}/release/<version>/upload"
        )
    return deployment


def delete(tx: Transaction, app: App) -> None:
    """For good: the controller stops what runs and removes the rows in batches."""
    app_services.set_desired_state(tx, app, DesiredState.DELETED)
    _supersede(tx, app, "the app is deleted")


def _wish(tx: Transaction, app: App, kind: str) -> Deployment | None:
    if app.desired_release is None:
        return None
    app_services.wish(tx, app, kind=kind, cause=tx.cause)
    return open_deployment(tx, app)


def open_deployment(tx: Transaction, app: App) -> Deployment:
    """The deployment of the app's newest wish; a running one is superseded and its aim carried on or left."""
    last = Deployment.objects.select_for_update().filter(app=app).order_by("-id").first()
    settled = last is not None and last.status == DeploymentStatus.SUCCEEDED
    previous_id, previous_floor, floor = None, 0, 0
    if last is not None:
        previous_id = last.release_id if settled else last.previous_release_id
        previous_floor = last.floor if settled else last.previous_floor
        floor = last.floor if settled or last.status in ACTIVE_DEPLOYMENT else last.previous_floor
    release = Release.objects.filter(app=app, number=app.desired_release or 0).first()
    _supersede(tx, app, f"superseded by a newer wish ({app.deploy_kind})")
    row = Deployment.objects.create(
        app=app, active_key=app.pk, kind=app.deploy_kind, serial=app.deploy_serial, release=release,
        previous_release_id=previous_id, previous_floor=previous_floor, floor=floor,
        desired_instances=app.instances if app.desired_state == DesiredState.RUNNING else 0,
        strategy=_frozen_strategy(app), reason=app.deploy_cause[:300], created_by=tx.actor.label, created_at=tx.at,
        progress_at=tx.at,
    )  # fmt: skip
    if row.kind == "restart":
        row.floor = row.pk
        Deployment.objects.filter(pk=row.pk).update(floor=row.pk)
    change = {"kind": row.kind, "release": app.desired_release, "serial": row.serial}
    tx.record("deployment.created", "deployment", row.pk, org_id=app.org_id, app_id=app.pk, change=change)
    return row


def _supersede(tx: Transaction, app: App, why: str) -> None:
    active = Deployment.objects.filter(active_key=app.pk).first()
    if active is None:
        return
    reverting = active.status == DeploymentStatus.REVERTING
    to = DeploymentStatus.REVERTED if reverting else DeploymentStatus.CANCELLED
    move(Deployment, active.pk, table=DEPLOYMENT, to=to, owner=LEADER if reverting else API, active_key=None,
         finished_at=tx.at, reason=why[:300])  # fmt: skip
    tx.record(f"deployment.{to}", "deployment", active.pk, org_id=app.org_id, app_id=app.pk, change={"why": why})


def cancel_deployment(tx: Transaction, app: App, deployment: Deployment) -> Deployment:
    """Stop rolling; what ran before comes back by the same deployment (unless `auto_revert` is off)."""
    if deployment.kind not in CANCELLABLE:
        nexts = {"scale": "scale", "start": "stop", "stop": "start"}
        raise Conflict(
            f"A deployment of kind {deployment.kind} is not cancelled but answered by its opposite.",
            code="not_cancellable", next=f"POST /app/{app.pk}/{nexts.get(deployment.kind, 'scale')}",
        )  # fmt: skip
    move(Deployment, deployment.pk, table=DEPLOYMENT, to=DeploymentStatus.CANCELLED, owner=API, active_key=None,
         finished_at=tx.at, reason=f"cancelled by {tx.actor.label}"[:300])  # fmt: skip
    tx.record("deployment.cancelled", "deployment", deployment.pk, org_id=app.org_id, app_id=app.pk)
    deployment.refresh_from_db()
    return deployment


def refuse_phases(app: App, deployment: Deployment) -> None:
    """pause, resume and promote: for strategies with phases, which come later."""
    kind = deployment.strategy.get("type", "rolling")
    raise Conflict(f"The strategy {kind} has no phases to pause or promote.", code="strategy_has_no_phases",
                   next=f"GET /app/{app.pk}/deployments/{deployment.pk}")  # fmt: skip


def restart_instance(tx: Transaction, instance: Instance) -> Instance:
    """In place: the same id and address, one restart more."""
    _change_instance(tx, instance, "instance.restart_asked", {}, generation=F("generation") + 1)
    return instance


def stop_instance(tx: Transaction, instance: Instance) -> Instance:
    """This one ends; as long as the app is to run, another takes its slot."""
    why = f"stopped by {tx.actor.label}"[:300]
    _change_instance(tx, instance, "instance.stop_asked", {"why": why}, desired="stop", reason=why)
    return instance


def _change_instance(tx: Transaction, instance: Instance, event: str, change: dict[str, Any], **fields: Any) -> None:
    updated = Instance.objects.filter(pk=instance.pk, desired="run", status__in=ON_NODE - {InstanceStatus.STOPPING})
    if not updated.update(revision=F("revision") + 1, **fields):
        raise Conflict(f"The instance is {instance.status} and about to end.", code="instance_not_running")
    instance.refresh_from_db()
    tx.record(event, "instance", instance.pk, org_id=instance.app.org_id, app_id=instance.app_id, change=change)


def drain_node(tx: Transaction, node: Node) -> Node:
    """Nothing new goes there, and what runs there moves away by its app's own rollout limits."""
    return _set_draining(tx, node, True, NodeStatus.DRAINING)


def activate_node(tx: Transaction, node: Node) -> Node:
    return _set_draining(tx, node, False, NodeStatus.READY)


def _set_draining(tx: Transaction, node: Node, draining: bool, status: NodeStatus) -> Node:
    if node.draining != draining:
        Node.objects.filter(pk=node.pk).update(draining=draining, revision=F("revision") + 1)
        if node.status in NODE.sources(status, API):
            move(Node, node.pk, table=NODE, to=status, owner=API, status_since=tx.at)
        tx.record(f"node.{'drained' if draining else 'activated'}", "node", node.pk, change={"name": node.name})
        node.refresh_from_db()
    return node


def _check_strategy(app: App) -> None:

    kind = app.strategy.get("type", "rolling")
    if kind not in STRATEGIES:
        detail = f"The strategy {kind} is not available yet."
        raise InvalidInput(
            detail,
            code="strategy_not_available",
            errors=[FieldError("/strategy/type", "strategy_not_available", detail)],
        )


def _frozen_strategy(app: App) -> dict[str, Any]:
    strategy = observe.strategy_of(app.strategy)
    return {
        "type": "recreate" if app.singleton else strategy.type,
        "max_surge": strategy.max_surge,
        "max_unavailable": strategy.max_unavailable,
        "progress_deadline_s": strategy.progress_deadline_s,
        "auto_revert": strategy.auto_revert,
    }

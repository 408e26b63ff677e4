"""The verbs of apps' running and of instances: what people ask for, as rows that the controller then fulfils.

Each runs inside the gate on an app row that was read (and locked) there. A wish becomes a Deployment at once, so that
the answer can name it; a wish that a lower layer left as data (`App.deploy_serial`) becomes one by
`open_deployment`, which the controller calls. What can be done with a deployment once it is there: `rollouts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import F

from apps import freeze
from apps import services as app_services
from apps.models import App, DesiredState
from consensus.gate import Transaction
from instances import queries, rollouts
from instances.models import Deployment, Instance, Node
from instances.preview import plan_now
from instances.rollouts import cancel_deployment, open_deployment, pause, promote, resume
from instances.states import API, NODE, ON_NODE, InstanceStatus, NodeStatus
from instances.volumes import services as volumes
from observing import journal
from omni.kernel.errors import Conflict
from omni.kernel.transitions import move
from releases import services as release_services
from releases.models import Release

__all__ = [
    "activate_node", "cancel_deployment", "delete", "deploy", "deploy_version", "drain_node", "open_deployment",
    "pause", "plan_now", "promote", "rescaled", "restart", "restart_instance", "resume", "rollback", "scale", "start",
    "stop", "stop_instance",
]  # fmt: skip


def deploy(
    tx: Transaction, app: App, release: Release, *, kind: str = "deploy", cause: str = "", override: bool = False
) -> Deployment:
    """Wish for `release` (kind deploy, rollback or config) and begin its deployment, unless the app is frozen."""
    freeze.refuse(tx, app, override=override)
    app_services.wish(tx, app, release_number=release.number, process_types=release.process_types, kind=kind,
                      cause=cause or tx.cause)  # fmt: skip
    return open_deployment(tx, app)


def deploy_version(tx: Transaction, app: App, version: str, *, override: bool = False) -> Deployment:
    """The version's code with the current configuration (DECISIONS 23)."""
    return deploy(tx, app, release_services.deploy_version(tx, app, version), override=override)


def rollback(
    tx: Transaction, app: App, *, version: str | None = None, number: int | None = None, override: bool = False
) -> Deployment:
    """Code and configuration of `version` (its newest release), of release `number`, or of what ran before.

    Where its instances still stand by, that very release is wished for, so that they are what comes back.
    """
    if version is None and number is None:
        number = queries.release_before(app.pk)
    target = release_services.release_for(app, version=version, number=number)
    if rollouts.kept_warm(app.pk, target.pk):
        app_services.restore_configuration(tx, app, target.config)
        return deploy(tx, app, target, kind="rollback", override=override)
    release = release_services.rollback_release(tx, app, version=version, number=number)
    return deploy(tx, app, release, kind="rollback", override=override)


def rescaled(tx: Transaction, app: App) -> Deployment | None:
    """The deployment of a change that needs no new release: count, singleton, placement. None while nothing runs."""
    return _wish(tx, app, "scale")


def scale(tx: Transaction, app: App, counts: Mapping[str, int]) -> Deployment | None:
    """By process type. None when nothing is deployed yet, or the counts are those already."""
    return _wish(tx, app, "scale") if app_services.scale(tx, app, counts) else None


def start(tx: Transaction, app: App) -> Deployment | None:
    if not app_services.set_desired_state(tx, app, DesiredState.RUNNING):
        return None
    return _wish(tx, app, "start")


def stop(tx: Transaction, app: App) -> Deployment | None:
    if not app_services.set_desired_state(tx, app, DesiredState.STOPPED):
        return None
    rollouts.abandon_trial(tx, app)
    return _wish(tx, app, "stop")


def restart(tx: Transaction, app: App) -> Deployment:
    """Every instance is replaced, the new ones first, so that even a single one drops nothing."""
    if app.desired_state != DesiredState.RUNNING:
        raise Conflict(f"The app is {app.desired_state}.", code="not_running", next=f"POST /app/{app.pk}/start")
    rollouts.refuse_on_trial(app)
    deployment = _wish(tx, app, "restart")
    if deployment is None:
        raise Conflict(
            "Nothing is deployed yet.", code="nothing_deployed", next=f"POST /app/{app.pk}/release/<version>/upload"
        )
    return deployment


def delete(tx: Transaction, app: App) -> None:
    """For good: the controller stops what runs and removes the rows in batches."""
    volumes.delete_all(tx, app)
    app_services.set_desired_state(tx, app, DesiredState.DELETED)
    rollouts.supersede(tx, app, "the app is deleted")


def _wish(tx: Transaction, app: App, kind: str) -> Deployment | None:
    if app.desired_release is None:
        return None
    app_services.wish(tx, app, kind=kind, cause=tx.cause)
    return open_deployment(tx, app)


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
    if instance.task_id is not None:
        raise Conflict(
            "The instance runs a task, once.", code="instance_of_task",
            next=f"POST /app/{instance.app_id}/tasks/{instance.task_id}/cancel",
        )  # fmt: skip
    updated = Instance.objects.filter(pk=instance.pk, desired="run", status__in=ON_NODE - {InstanceStatus.STOPPING})
    if not updated.update(revision=F("revision") + 1, request_id=journal.current(), **fields):
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

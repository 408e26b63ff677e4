"""From rows to what the planner takes: few queries for many apps.

Owns reading, nothing else. What it returns carries the revisions it saw, so that `apply` can refuse to act on
something that has changed since.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.db.models import Count, Max, Sum

from apps import processes, strategy
from apps.models import App
from apps.strategy import Strategy
from instances.models import Deployment, Instance, Node
from instances.placement import NodeView, need_of
from instances.plan.model import CommandView, DeploymentView, Desired, InstanceView, Observed, ProcessSize, ReleaseView
from instances.states import ON_NODE, InstanceStatus, NodeStatus
from instances.tasks.states import ACTIVE as TASK_ACTIVE
from instances.telemetry import compare
from instances.volumes.snapshots.holding import held
from omni.kernel.models import Event
from releases.models import Release

_RELEASE = (
    "id", "number", "version", "config__memory_mb", "config__cpu", "config__restart_policy", "process_types",
    "config__process_settings",
)  # fmt: skip
_DEPLOYMENT = (
    "id", "app_id", "kind", "status", "serial", "strategy", "progress_at", "progress", "floor", "previous_floor",
    "prepares", "release_task__status", "release_task__reason", "release_task__instance_number",
    "first", "paused_at", "promoted_at", "baking_since", "new_percent", "warm_until", "finished_at", "revision",
    *(f"release__{name}" for name in _RELEASE), *(f"previous_release__{name}" for name in _RELEASE),
)  # fmt: skip
_INSTANCE = (
    "id", "app_id", "slot", "release_id", "deployment_id", "desired", "status", "health", "created_at", "memory_mb",
    "cpu", "node_id", "node__name", "node__draining", "healthy_at", "restarts", "attempt", "finished_at", "detail",
    "reason", "healthy_since", "crashes", "process_type", "revision",
)  # fmt: skip
_APP = (
    "id", "revision", "status", "desired_state", "instances", "singleton", "runtime", "placement", "deploy_serial",
    "desired_release", "process_counts", "volume_node",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """One app as it was read. `unfulfilled`: its newest wish has no deployment yet."""

    app_id: int
    app_revision: int
    deployment_revision: int | None
    instance_revisions: dict[int, int]
    desired: Desired
    observed: Observed
    unfulfilled: bool = False


def observe(
    app_ids: Sequence[int], nodes: tuple[NodeView, ...], watched_since: dt.datetime | None = None
) -> list[Seen]:
    """The apps of `app_ids` that exist, in the order of their ids. Five queries, however many apps; two
    more when one of them has volumes."""
    apps = list(App.objects.filter(id__in=app_ids).order_by("id").values(*_APP))
    deployments = _latest_deployments([app["id"] for app in apps])
    instances: dict[int, list[dict[str, Any]]] = {}
    rows = Instance.objects.filter(
        app_id__in=[app["id"] for app in apps], desired__in=("run", "stop"), task__isnull=True
    )  # fmt: skip
    for row in rows.order_by("id").values(*_INSTANCE):
        instances.setdefault(row["app_id"], []).append(row)
    waiting = held(app["id"] for app in apps if app["volume_node"])
    return [
        _seen(app, deployments.get(app["id"]), instances.get(app["id"], []), nodes, watched_since,
              waiting.get(app["id"], ""))
        for app in apps
    ]  # fmt: skip


def node_views() -> tuple[NodeView, ...]:
    """Every node with what is allocated on it. Three queries."""
    used: dict[int, Mapping[str, Any]] = {
        row["node_id"]: dict(row)
        for row in Instance.objects.filter(status__in=ON_NODE, node__isnull=False)
        .order_by()
        .values("node_id")
        .annotate(memory=Sum("memory_mb"), weight=Sum("cpu"))
    }
    leftovers = dict(
        Instance.objects.filter(on_node=True, status=InstanceStatus.LOST)
        .order_by()
        .values_list("node_id")
        .annotate(Count("id"))
    )
    found = Node.objects.order_by("name").values("id", "name", "status", "memory_mb", "cpu_count", "facts", "labels")
    return tuple(_node_view(row, used.get(row["id"], {}), leftovers.get(row["id"], 0)) for row in found)


def strategy_of(given: dict[str, Any]) -> Strategy:
    """`App.strategy` (or a deployment's frozen copy) with the defaults of the platform."""
    return strategy.read(given, progress_deadline_s=settings.CONFIG.timings.progress_deadline_s)


def _latest_deployments(app_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    newest = Deployment.objects.filter(app_id__in=app_ids).order_by().values("app_id").annotate(last=Max("id"))
    ids = [row["last"] for row in newest]
    return {row["app_id"]: row for row in Deployment.objects.filter(id__in=ids).values(*_DEPLOYMENT)}


def _seen(
    app: dict[str, Any],
    deployment: dict[str, Any] | None,
    instances: list[dict[str, Any]],
    nodes: tuple[NodeView, ...],
    watched_since: dt.datetime | None,
    waiting: str,
) -> Seen:
    desired = Desired(
        app_id=app["id"],
        state=app["desired_state"],
        instances=app["instances"],
        deployment=_with_figures(_deployment_view(deployment), app["id"]) if deployment else None,
        singleton=app["singleton"],
        wants=need_of(
            app["placement"], 0, 0.0, app["runtime"], settings.CONFIG.limits.cpu_overcommit, app["volume_node"], waiting
        ),
        watched_since=watched_since,
        others=tuple(sorted(app["process_counts"].items())),
    )
    served = deployment["serial"] if deployment else 0
    return Seen(
        app_id=app["id"],
        app_revision=app["revision"],
        deployment_revision=deployment["revision"] if deployment else None,
        instance_revisions={row["id"]: row["revision"] for row in instances},
        desired=desired,
        observed=Observed(app["status"], tuple(_instance_view(row) for row in instances), nodes),
        unfulfilled=app["deploy_serial"] > served
        and app["desired_release"] is not None
        and app["desired_state"] != "deleted",
    )


def latest_deployment(app_id: int) -> DeploymentView | None:
    """The app's newest deployment as the planner sees it, without figures."""
    row = Deployment.objects.filter(app_id=app_id).order_by("-id").values(*_DEPLOYMENT).first()
    return _deployment_view(row) if row is not None else None


def release_view(release_id: int) -> ReleaseView:
    row = Release.objects.filter(pk=release_id).values(*_RELEASE).get()
    return _view_of(*(row[name] for name in _RELEASE))


def _deployment_view(row: dict[str, Any]) -> DeploymentView:
    return DeploymentView(
        id=row["id"],
        kind=row["kind"],
        status=row["status"],
        release=_release_view(row, "release__"),
        previous=_release_view(row, "previous_release__"),
        strategy=strategy_of(row["strategy"]),
        progress_at=row["progress_at"],
        progress=row["progress"],
        floor=row["floor"],
        previous_floor=row["previous_floor"],
        first=row["first"],
        paused=row["paused_at"] is not None,
        promoted=row["promoted_at"] is not None,
        baking_since=row["baking_since"],
        new_percent=row["new_percent"],
        warm_until=row["warm_until"],
        finished_at=row["finished_at"],
        command=_command_view(row),
    )


def _command_view(row: dict[str, Any]) -> CommandView | None:
    """The release command that comes before the rollout, as far as it is."""
    if not row["prepares"]:
        return None
    status = row["release_task__status"]
    state = "due" if status is None else "running" if status in TASK_ACTIVE else str(status)
    return CommandView(state, row["release_task__reason"] or "", row["release_task__instance_number"])


def _with_figures(view: DeploymentView, app_id: int) -> DeploymentView:
    """What both sides of a canary have answered since its trial began."""
    if view.baking_since is None or view.release is None or not view.on_trial or view.strategy.type != "canary":
        return view
    return replace(view, compared=compare.sides(app_id, view.release.id, view.floor, view.baking_since))


def _release_view(row: dict[str, Any], prefix: str) -> ReleaseView | None:
    if row[prefix + "id"] is None:
        return None
    return _view_of(*(row[prefix + name] for name in _RELEASE))


def _view_of(
    id_: int, number: int, version: str, memory_mb: int, cpu: float, policy: str, types: Any, settings: Any
) -> ReleaseView:
    sizes = tuple(
        ProcessSize(name, processes.memory_of(settings, name, memory_mb), processes.cpu_of(settings, name, cpu))
        for name in processes.runnable(types)
    )
    return ReleaseView(id_, number, version, memory_mb, cpu, policy, sizes)


def _instance_view(row: dict[str, Any]) -> InstanceView:
    return InstanceView(
        id=row["id"],
        slot=row["slot"],
        release_id=row["release_id"],
        deployment_id=row["deployment_id"] or 0,
        desired=row["desired"],
        status=row["status"],
        health=row["health"],
        created_at=row["created_at"],
        memory_mb=row["memory_mb"],
        cpu=row["cpu"],
        node_id=row["node_id"],
        node_name=row["node__name"] or "",
        node_draining=bool(row["node__draining"]),
        ever_healthy=row["healthy_at"] is not None,
        restarts=row["restarts"],
        attempt=row["attempt"],
        finished_at=row["finished_at"],
        detail=row["detail"],
        reason=row["reason"],
        healthy_since=row["healthy_since"],
        crashes=row["crashes"],
        process_type=row["process_type"],
    )


def _node_view(row: Mapping[str, Any], used: Mapping[str, Any], leftovers: int) -> NodeView:
    return NodeView(
        id=row["id"],
        name=row["name"],
        status=row["status"],
        memory_mb=row["memory_mb"],
        cpu_count=row["cpu_count"],
        memory_used_mb=int(used.get("memory") or 0),
        cpu_used=round(float(used.get("weight") or 0.0), 6),
        runtimes=tuple(row["facts"].get("runtimes", ())),
        labels=row["labels"],
        leftovers=leftovers,
    )


def apps_touched(after_key: int, limit: int) -> tuple[list[tuple[int, str, str, int, int | None]], int]:
    """Events after `after_key`: (key, kind, object type, object id, app id), and the newest key among them."""
    rows = list(
        Event.objects.filter(key__gt=after_key)
        .order_by("key")
        .values_list("key", "kind", "object_type", "object_id", "app_id")[:limit]
    )
    return rows, rows[-1][0] if rows else after_key


def apps_on_nodes(node_ids: Iterable[int]) -> set[int]:
    """Apps with something live on one of the nodes."""
    return set(Instance.objects.filter(node_id__in=node_ids, status__in=ON_NODE).values_list("app_id", flat=True))


def apps_waiting_for_room() -> set[int]:
    return set(Instance.objects.filter(status=InstanceStatus.PENDING).values_list("app_id", flat=True))


def apps_after(app_id: int, limit: int) -> list[int]:
    """The next apps in the order of their ids: one portion of the full pass."""
    return list(App.objects.filter(id__gt=app_id).order_by("id").values_list("id", flat=True)[:limit])


def ready_nodes() -> set[int]:
    return set(Node.objects.filter(status=NodeStatus.READY).values_list("id", flat=True))

"""What others want to know of an app's deployments and instances; rows in, plain data out.

Owns the shapes of a deployment and of `info`'s parts. Reads only.
"""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.models import Q

from apps import processes
from apps.models import App
from instances import deployment_rows, ledger
from instances.models import Deployment
from instances.states import ACTIVE_DEPLOYMENT, DeploymentStatus, InstanceStatus
from instances.telemetry import compare
from instances.telemetry.figures import app_metrics
from omni.kernel.clock import rfc3339
from omni.kernel.errors import Conflict

_LOOKED_BACK = 100  # deployments
_SETTLED = Q(status=DeploymentStatus.SUCCEEDED, release__isnull=False) | Q(
    status=DeploymentStatus.REVERTED, previous_release__isnull=False
)
_SETTLED_FIELDS = (
    "status", "finished_at", "release_id", "release__number", "release__version", "previous_release_id",
    "previous_release__number", "previous_release__version",
)  # fmt: skip

NO_VERSION: dict[str, Any] = {
    "current": None, "release_id": None, "release": None, "deployed_at": None, "previous": None,
    "previous_release": None,
}  # fmt: skip
_SUMMARY = (
    "SELECT process_type, desired, status, health FROM instances_instance "
    "WHERE app_id = %s AND desired IN ('run', 'stop') AND task_id IS NULL"
)  # fmt: skip


def info(app: App) -> dict[str, Any]:
    """The parts of `GET /app/<app>/info` that this layer knows. Two statements, but for figures."""
    recent = deployment_rows.recent(app.pk)
    found = _version_of(deployment_rows.settled(recent))
    if found["previous"] is None and len(recent) == deployment_rows.RECENT:
        found = version(app.pk)  # many scalings and restarts since: look further back
    return {
        "version": found,
        **summaries(app),
        "metrics": app_metrics(app.pk),
        "deployment": deployment_rows.show(recent[0]) if recent else None,
    }


def summaries(app: App) -> dict[str, Any]:
    """`instances_summary` of all instances, `processes_summary` by process type."""
    wanted = processes.wanted(app.instances, app.process_counts, app.process_types)
    by_type = {name: _counts(count if app.desired_state == "running" else 0) for name, count in wanted.items()}
    for name in processes.runnable(app.process_types or ()):
        by_type.setdefault(name, _counts(0))
    with connection.cursor() as cursor:
        cursor.execute(_SUMMARY, [app.pk])
        rows = cursor.fetchall()
    for name, wish, status, health in rows:
        summary = by_type.setdefault(name, _counts(0))
        if status == InstanceStatus.RUNNING and wish == "run":
            summary["running"] += 1
            summary["healthy"] += health == "healthy"
        elif status in (InstanceStatus.CRASHED, InstanceStatus.FAILED):
            summary["failed"] += 1
    total = {key: sum(summary[key] for summary in by_type.values()) for key in _counts(0)}
    return {"instances_summary": total, "processes_summary": by_type}


def _counts(desired: int) -> dict[str, int]:
    return {"desired": desired, "running": 0, "healthy": 0, "failed": 0}


def version(app_id: int) -> dict[str, Any]:
    """What runs, since when, and what ran before."""
    return _version_of(_settled(app_id))


def _version_of(settled: list[tuple[int, int, str, Any]]) -> dict[str, Any]:
    shown: dict[str, Any] = dict(NO_VERSION)
    for release_id, number, name, at in settled:
        if shown["release_id"] is None:
            shown |= {"current": name, "release_id": release_id, "release": number, "deployed_at": rfc3339(at)}
        elif release_id == shown["release_id"]:
            shown["deployed_at"] = rfc3339(at)  # it has run since that earlier deployment
        else:
            shown |= {"previous": name, "previous_release": number}
            break
    return shown


def release_before(app_id: int) -> int:
    """The number of the release that ran before the one that is wished for now. Raises Conflict."""
    rows = Deployment.objects.filter(app_id=app_id).order_by("-id")
    last = rows.values("status", "release_id", "previous_release_id").first()
    back = last is not None and last["status"] in (DeploymentStatus.REVERTING, DeploymentStatus.REVERTED)
    now = last["previous_release_id" if back else "release_id"] if last else None
    for release_id, number, _, _ in _settled(app_id):
        if release_id != now:
            return int(number)
    raise Conflict("Nothing else ran before.", code="nothing_to_roll_back", next=f"GET /app/{app_id}/releases")


def _settled(app_id: int) -> list[tuple[int, int, str, Any]]:
    """(release id, number, version, when) of each deployment that reached an end, newest first."""
    rows = Deployment.objects.filter(_SETTLED, app_id=app_id).order_by("-id").values(*_SETTLED_FIELDS)
    found = []
    for row in rows[:_LOOKED_BACK]:
        prefix = "" if row["status"] == DeploymentStatus.SUCCEEDED else "previous_"
        found.append(
            (row[f"{prefix}release_id"], row[f"{prefix}release__number"], row[f"{prefix}release__version"],
             row["finished_at"])
        )  # fmt: skip
    return found


def show_deployment(row: Deployment, *, steps: bool = True, counts: bool = False) -> dict[str, Any]:
    """`counts`: with what the ingresses counted, which takes queries of its own."""
    version, release = (row.release.version, row.release.number) if row.release else (None, None)
    before = row.previous_release
    shown: dict[str, Any] = {
        "id": row.pk,
        "app_id": row.app_id,
        "kind": row.kind,
        "status": row.status,
        "version": version,
        "release": release,
        "previous_version": before.version if before else None,
        "previous_release": before.number if before else None,
        "instances": row.desired_instances,
        "strategy": row.strategy,
        "reason": row.reason,
        "error": {"code": row.error_code, "detail": row.error_detail} if row.error_code else None,
        "created_by": row.created_by,
        "release_task_id": row.release_task_id,
        **deployment_rows.phases(row.status, row.strategy, _phase_columns(row)),
        "created_at": rfc3339(row.created_at),
        "progress_at": rfc3339(row.progress_at),
        "finished_at": rfc3339(row.finished_at),
        "revision": row.revision,
        "links": deployment_rows.links(row.app_id, row.pk),
    }
    if steps:
        shown |= {"steps": row.steps, "evidence": row.evidence or None}
    if counts:
        shown |= {"comparison": _comparison(row), "ledger": ledger.of(row)}
    return shown


def _phase_columns(row: Deployment) -> dict[str, Any]:
    return {name: getattr(row, name) for name in (*deployment_rows.PHASES, "finished_at")}


def _comparison(row: Deployment) -> dict[str, Any] | None:
    """What both sides of a canary answered: when it was decided, or so far."""
    if row.comparison:
        return dict(row.comparison)
    if row.baking_since is None or row.release_id is None or row.strategy.get("type") != "canary":
        return None
    if row.status not in ACTIVE_DEPLOYMENT:
        return None
    return compare.shown(compare.sides(row.app_id, row.release_id, row.floor, row.baking_since))

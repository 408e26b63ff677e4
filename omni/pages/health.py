"""From an app's rows to the facts that `sentence` tells.

Owns the look-up, for one app or for a few of a list at once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Max

from apps import freeze, processes
from apps.models import App
from instances.deployment_rows import PHASES, phase_of
from instances.models import Deployment, Instance
from omni.kernel import clock
from omni.pages.sentence import AppSeen, DeploymentSeen, InstanceSeen, Sentence, ended, restarts_lately, sentence
from releases.models import Build
from releases.states import BuildStatus

_MOST_ROWS = 2_000


def sentences(apps: Sequence[App]) -> dict[int, Sentence]:
    """One sentence an app; three queries for all."""
    ids = [app.pk for app in apps]
    if not ids:
        return {}
    rows: dict[int, list[Instance]] = {}
    found = Instance.objects.filter(app_id__in=ids, desired__in=("run", "stop")).defer("placement", "handle")
    for row in found.order_by("process_type", "slot", "-id")[:_MOST_ROWS]:
        rows.setdefault(row.app_id, []).append(row)
    newest = Deployment.objects.filter(app_id__in=ids).order_by().values("app_id").annotate(last=Max("id"))
    deployments = {
        row.app_id: row
        for row in Deployment.objects.filter(pk__in=[one["last"] for one in newest]).select_related(
            "release", "previous_release"
        )
    }
    building = dict(
        Build.objects.filter(app_id__in=ids, status__in=(BuildStatus.QUEUED, BuildStatus.BUILDING))
        .order_by("id").values_list("app_id", "version")
    )  # fmt: skip
    now = clock.now()
    return {
        app.pk: sentence(facts(app, rows.get(app.pk, []), deployments.get(app.pk), building.get(app.pk, ""), now))
        for app in apps
    }


def facts(app: App, rows: Sequence[Instance], last: Deployment | None, building: str, now: dt.datetime) -> AppSeen:
    """What `sentence` needs of rows that are there already."""
    frozen = freeze.in_force(app, now)
    return AppSeen(
        desired_state=app.desired_state,
        wanted=wanted(app),
        released=app.desired_release is not None,
        instances=[_instance(row, now) for row in rows if row.desired == "run" or row.status != "stopped"],
        deployment=_deployment(last, rows) if last is not None else None,
        maintenance=app.maintenance,
        frozen=str(frozen["reason"]) if frozen else "",
        building=building,
    )


def wanted(app: App) -> int:
    """Instances of all process types that its release has."""
    return sum(processes.wanted(app.instances, app.process_counts, app.process_types).values())


def _instance(row: Instance, now: dt.datetime) -> InstanceSeen:
    return InstanceSeen(
        row.slot, row.status, row.health, restarts_lately(row.history, row.restarts, now), ended(row.last_exit),
        row.detail, row.reason, "" if row.process_type == processes.WEB else row.process_type,
    )  # fmt: skip


def _deployment(row: Deployment, instances: Sequence[Instance]) -> DeploymentSeen:
    columns: Mapping[str, Any] = {name: getattr(row, name) for name in PHASES}
    on_new = sum(
        one.release_id == row.release_id and (one.deployment_id or 0) >= row.floor and one.desired == "run"
        and (one.status, one.health) == ("running", "healthy") for one in instances
    )  # fmt: skip
    return DeploymentSeen(
        kind=row.kind,
        status=row.status,
        version=row.release.version if row.release else None,
        phase=phase_of(row.status, row.strategy, columns),
        on_new=on_new,
        error=row.error_detail or row.error_code,
        previous=row.previous_release.version if row.previous_release else None,
    )

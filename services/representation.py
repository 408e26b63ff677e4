"""How services, alerts and silences are shown. Secrets never are."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

from omni.kernel.clock import rfc3339
from services import definitions
from services.models import Alert, RemedyRun, Service, Silence


def service(row: Service, alert_id: int | None = None) -> dict[str, Any]:
    shown = definitions.definition(row)
    if shown["remedy"] is not None and row.remedy_secret:
        shown["remedy"]["secret"] = {"secret": True}
    return {
        "id": row.pk,
        **shown,
        "source": row.source,
        "maintenance": row.maintenance,
        "maintenance_until": rfc3339(row.maintenance_until),
        "state": row.state,
        "state_since": rfc3339(row.state_since),
        "reason": row.reason,
        "detail": row.detail,
        "votes": row.votes or None,
        "flapping": row.flapping,
        "alert": alert_id,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
        "revision": row.revision,
        "links": {"self": f"/services/{row.pk}", "checks": f"/services/{row.pk}/checks"},
    }


def services(rows: Iterable[Service]) -> list[dict[str, Any]]:
    """With the alert of each. One query more, however many."""
    found = list(rows)
    alerts = dict(Alert.objects.filter(active_key__in=[row.pk for row in found]).values_list("active_key", "id"))
    return [service(row, alerts.get(row.pk)) for row in found]


def alert(row: Alert, silences: Iterable[Silence] = ()) -> dict[str, Any]:
    return {
        "id": row.pk,
        "key": key(row),
        "service": {"id": row.service_id, "name": row.service_name},
        "severity": row.severity,
        "status": row.status,
        "detail": row.detail,
        "affected": row.affected,
        "silenced": any(covers(one, row.service_name) for one in silences),
        "opened_at": rfc3339(row.opened_at),
        "acknowledged_at": rfc3339(row.acknowledged_at),
        "acknowledged_by": row.acknowledged_by or None,
        "note": row.note or None,
        "resolved_at": rfc3339(row.resolved_at),
        "resolution": row.resolution or None,
        "grouped_under": row.grouped_under_id,
        "revision": row.revision,
        "links": {
            "self": f"/alerts/{row.pk}" if row.pk else None,
            "service": f"/services/{row.service_id}" if row.service_id else None,
        },
    }


def key(row: Alert) -> str:
    """What an alert is called where it is told: it has a name before it has a row (`outage`)."""
    return row.told_as or f"alert-{row.pk}"


def silence(row: Silence) -> dict[str, Any]:
    return {
        "id": row.pk,
        "pattern": row.pattern,
        "reason": row.reason,
        "starts_at": rfc3339(row.starts_at),
        "ends_at": rfc3339(row.ends_at),
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "revision": row.revision,
    }


def remedy_run(row: RemedyRun) -> dict[str, Any]:
    return {
        "id": row.pk,
        "type": row.type,
        "status": row.status,
        "reason": row.reason,
        "detail": row.detail,
        "deployment": row.deployment_id,
        "task": row.task_id,
        "started_at": rfc3339(row.started_at),
        "finished_at": rfc3339(row.finished_at),
    }


def covers(silence: Silence, name: str) -> bool:
    return fnmatch.fnmatchcase(name, silence.pattern)

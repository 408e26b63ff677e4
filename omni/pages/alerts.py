"""`/admin/alerts/`: what is wrong now, grouped under its cause, what was, who was told, and who is not to be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest

from omni.kernel import clock
from omni.kernel.context import Actor
from omni.pages.app import portion
from omni.pages.frame import Page, page
from omni.pages.services_form import SPANS
from services import outcomes
from services.models import Alert, Notice, Service, Silence
from services.representation import covers
from services.states import AlertStatus, NoticeStatus

_STATUSES = (AlertStatus.OPEN, AlertStatus.ACKNOWLEDGED, AlertStatus.RESOLVED)


@page("platform:read")
def alerts(request: HttpRequest, actor: Actor) -> Page:
    status = request.GET.get("status", "")
    rows = Alert.objects.all()
    if status in _STATUSES:
        rows = rows.filter(status=status)
    elif status != "all":
        status, rows = "", rows.exclude(status=AlertStatus.RESOLVED)
    found, older = portion(rows, request)
    counts = {name: Alert.objects.filter(status=name).count() for name in _STATUSES[:2]}
    values = {
        "rows": _rows(found), "older": older, "status": status, "counts": counts, "spans": SPANS,
        "channels": outcomes.channels(), "may": "platform:write" in actor.scopes,
        "watched": Service.objects.count(),
    }  # fmt: skip
    return Page("alerts.html", "Alerts", values, live=4)


def _rows(found: Sequence[Alert]) -> list[dict[str, Any]]:
    """With the services that speak through each, what was told of it, and the silences over it."""
    ids = [alert.pk for alert in found]
    told: dict[int, list[Notice]] = {}
    for notice in Notice.objects.filter(alert_id__in=ids).order_by("id"):
        told.setdefault(notice.alert_id, []).append(notice)
    names = {name for alert in found for name in alert.affected[:50]}
    below = dict(Service.objects.filter(name__in=names).values_list("name", "pk")) if names else {}
    quiet = outcomes.active_silences(clock.now())
    return [
        {
            "row": alert,
            "active": alert.status != AlertStatus.RESOLVED,
            "affected": [(name, below.get(name)) for name in alert.affected[:50]],
            "more": max(0, len(alert.affected) - 50),
            "told": [(notice, _told(notice)) for notice in told.get(alert.pk, ())],
            "silence": next((one for one in quiet if covers(one, alert.service_name)), None),
        }
        for alert in found
    ]


def _told(notice: Notice) -> str:
    """What became of a notice, in a few words."""
    what = f"{notice.kind} by {notice.channel}"
    if notice.status == NoticeStatus.SENT:
        return f"{what}: sent" + (f" at the {notice.attempts}. try" if notice.attempts > 1 else "")
    if notice.status == NoticeStatus.FAILED:
        return f"{what}: given up after {notice.attempts} tries: {notice.detail}"
    if notice.attempts:
        return f"{what}: tried {notice.attempts} times, goes on: {notice.detail}"
    return f"{what}: on its way"


@page("platform:read")
def silences(request: HttpRequest, actor: Actor) -> Page:
    rows, older = portion(Silence.objects.all(), request)
    now = clock.now()
    values = {
        "rows": [(row, _state(row, now)) for row in rows], "older": older, "spans": SPANS,
        "pattern": request.GET.get("pattern", "")[:120], "may": "platform:write" in actor.scopes,
    }  # fmt: skip
    return Page("silences.html", "Silences", values, live=10, above=(("Alerts", "/admin/alerts/"),))


def _state(row: Silence, now: Any) -> str:
    if row.ends_at <= now:
        return "ended"
    return "active" if row.starts_at <= now else "waits"

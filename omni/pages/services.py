"""`/admin/service/`: what is watched, how each of them is, why, since when, and what was done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Case, Count, F, IntegerField, Q, QuerySet, TextField, Value, When
from django.db.models.functions import Cast
from django.http import HttpRequest

from apps.models import App
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.kernel.models import Event
from omni.pages import happened, services_history, words
from omni.pages.frame import Page, page
from services import services as verbs
from services.api import vantage_points
from services.models import Alert, RemedyRun, Service
from services.remedies import Bounds, Patient, why_not

ROWS = 50
STATES = ("unhealthy", "degraded", "unknown", "maintenance", "healthy")  # the worst first
_SOURCES = {"own": ("api", "config"), "platform": ("platform",)}
_EVENTS, _LOOKED_AT, _RUNS, _ALERTS, _NEIGHBOURS = 8, 2_000, 10, 8, 50
_LEADERS = ("part", "heartbeat")  # what the leader judges itself: no vantage point looks
_NEWEST = "SELECT service_id, MAX(at_us) FROM services_checkspan WHERE service_id IN ({}) AND from_us >= %s GROUP BY 1"
_BEATS = "SELECT service_id, at_us FROM services_beat WHERE service_id IN ({})"
_DAY_US = 86_400_000_000


@page("platform:read")
def listing(request: HttpRequest, actor: Actor) -> Page:
    text, state, source = (request.GET.get(name, "").strip() for name in ("q", "state", "source"))
    every = Service.objects.filter(source__in=_SOURCES[source]) if source in _SOURCES else Service.objects.all()
    counts = {str(name): int(count) for name, count in every.order_by().values_list("state").annotate(Count("id"))}
    found = every.filter(name__icontains=text) if text else every
    found = found.filter(state=state) if state in STATES else found
    rows = _portion(found, request.GET.get("after", ""))
    shown = rows[:ROWS]
    values = {
        "rows": _rows(shown), "q": text, "state": state, "source": source, "total": sum(counts.values()),
        "states": [(name, counts[name]) for name in STATES if counts.get(name)],
        "further": f"{STATES.index(shown[-1].state)}:{shown[-1].name}" if len(rows) > ROWS else "",
        "may": "platform:write" in actor.scopes,
    }  # fmt: skip
    return Page("services.html", "Services", values, live=4)


def _portion(rows: QuerySet[Service], after: str) -> list[Service]:
    """The worst first, then by name; `after` is the place of the last one shown."""
    order = Case(*(When(state=name, then=Value(at)) for at, name in enumerate(STATES)), output_field=IntegerField())
    rows = rows.annotate(place=order)
    place, colon, name = after.partition(":")
    if colon and place.isascii() and place.isdigit() and len(place) < 3:
        rows = rows.filter(Q(place__gt=int(place)) | Q(place=int(place), name__gt=name))
    return list(rows.order_by("place", "name")[: ROWS + 1])


def _rows(services: Sequence[Service]) -> list[dict[str, Any]]:
    """With the last check of each and its alert. Three queries, however many."""
    ids = [service.pk for service in services]
    last = last_checks(ids)
    alerts = dict(Alert.objects.filter(active_key__in=ids).values_list("active_key", "status"))
    return [
        {
            "row": service,
            "last": last.get(service.pk),
            "by_leader": service.check_spec["type"] == "part",
            "checks": words_of_check(service.check_spec),
            "alert": alerts.get(service.pk, ""),
            "short": service.name.removeprefix("platform:"),
        }
        for service in services
    ]


def last_checks(ids: Sequence[int]) -> dict[int, Any]:
    """When a vantage point looked last, or the heartbeat came; of the last day."""
    if not ids:
        return {}
    since = clock.to_us(clock.now()) - _DAY_US
    marks = sql.marks(list(ids))
    rows = sql.select(_NEWEST.format(marks), [*ids, since]) + sql.select(_BEATS.format(marks), [*ids])
    return {int(service): clock.from_us(int(at)) for service, at in rows}


def words_of_check(spec: Mapping[str, Any]) -> str:
    """The check in a few words."""
    match spec["type"]:
        case "http":
            return f"{spec['method']} {spec['url']}"
        case "tcp":
            return f"connects to {spec['host']}:{spec['port']}"
        case "tls":
            return f"certificate of {spec['host']}:{spec['port']}"
        case "exec":
            return "runs " + " ".join(spec["command"])[:80]
        case "heartbeat":
            return "waits for heartbeats"
        case "disk":
            return f"free space of {spec['path']}"
    return "asked by the leader"


@page("platform:read")
def one(request: HttpRequest, actor: Actor, service: int) -> Page:
    found = verbs.find(service)
    now, window = clock.now(), request.GET.get("window", "1h")
    window = window if window in services_history.WINDOWS else "1h"
    on_nodes = found.check_spec["type"] not in _LEADERS
    strips = services_history.strips(found.pk, window, found.interval_s, now) if on_nodes else []
    active = list(Alert.objects.filter(active_key__isnull=False).order_by("id")[:500])
    runs = list(RemedyRun.objects.filter(service=found).order_by("-started_at")[:_RUNS])
    values = {
        "service": found,
        "check": words_of_check(found.check_spec),
        "facts": _facts(found),
        "tone": "warn" if found.flapping else words.SERVICE_TONES.get(found.state, "off"),
        "on_nodes": on_nodes,
        "last": last_checks([found.pk]).get(found.pk),
        "strips": strips[: services_history.MOST_NODES],
        "more_strips": len(strips) - services_history.MOST_NODES,
        "latest": {said["node"]: said for said in vantage_points(found)} if on_nodes else {},
        "window": window,
        "windows": list(services_history.WINDOWS),
        "speaker": next((one for one in active if found.name in one.affected), None),
        "alerts": list(Alert.objects.filter(service_id=found.pk).order_by("-id")[:_ALERTS]),
        "runs": runs,
        "remedy": _remedy(found),
        "waits": _waits(found, runs, any(one.service_id == found.pk for one in active)),
        "below": _neighbours(Q(name__in=found.depends_on)) if found.depends_on else [],
        "above_it": _dependents(found),
        "events": [{**one, "text": _here(one["text"], found.name)} for one in happened.told(_events(found.pk))],
        "may": "platform:write" in actor.scopes,
    }
    return Page("service.html", found.name, values, live=4, above=(("Services", "/admin/service/"),))


def _facts(service: Service) -> list[tuple[str, str]]:
    spec = service.check_spec
    told = [("Kind", str(spec["type"]))]
    if spec["type"] == "http":
        told.append(("Good is", f"status {spec['status_min']} to {spec['status_max']}"))
        if spec["contains"]:
            told.append(("Body holds", str(spec["contains"])))
    if spec["type"] == "tls":
        told += [("Warns below", f"{spec['warn_days']:g} days"), ("Fails below", f"{spec['fail_days']:g} days")]
    points = "all nodes" if service.vantage_points is None else f"{service.vantage_points} nodes"
    asked_by = spec.get("node") or ("the leader" if spec["type"] in _LEADERS else points)
    return [
        *told,
        ("Asked by", asked_by),
        ("Every", f"{service.interval_s:g} s, waits {service.timeout_s:g} s"),
        ("Changes after", f"{service.unhealthy_threshold} failed or {service.healthy_threshold} good in a row"),
        ("Start period", f"{service.start_period_s:g} s"),
    ]


def _remedy(service: Service) -> str:
    remedy = service.remedy
    if remedy is None:
        return ""
    if remedy["type"] == "webhook":
        what = f"calls {remedy['url']}"
    else:
        app = App.objects.filter(pk=remedy["app"]).values_list("name", flat=True).first() or "an app that is gone"
        what = f"restarts {app}" if remedy["type"] == "restart_app" else f"runs {' '.join(remedy['command'])} in {app}"
    after = f" after {remedy['after_s']:g} s" if remedy["after_s"] else ""
    return f"{what}{after}, at most {remedy['max_per_hour']} times an hour, again after {remedy['backoff_s']:g} s"


def _waits(service: Service, runs: Sequence[RemedyRun], speaks: bool) -> str:
    """Why no remedy runs although the service is unhealthy; of the newest runs."""
    if service.remedy is None or service.state != "unhealthy":
        return ""
    ended = [run.finished_at.timestamp() for run in runs if run.finished_at is not None]
    patient = Patient(
        since=service.state_since.timestamp(), speaks=speaks, running=any(run.finished_at is None for run in runs),
        runs=[run.started_at.timestamp() for run in runs], ended=max(ended, default=0.0),
    )  # fmt: skip
    remedy = service.remedy
    bounds = Bounds(remedy["after_s"], remedy["backoff_s"], remedy["max_per_hour"])
    return why_not(patient, bounds, clock.now().timestamp())


def _neighbours(condition: Q) -> list[Service]:
    return list(Service.objects.filter(condition).order_by("name")[:_NEIGHBOURS])


def _dependents(service: Service) -> list[Service]:
    rows = Service.objects.annotate(on=Cast(F("depends_on"), TextField())).filter(on__contains=f'"{service.name}"')
    return list(rows.order_by("name")[:_NEIGHBOURS])


def _here(text: str, name: str) -> str:
    """On its own page a service is not named again."""
    rest = text.removeprefix(f"Service {name}").lstrip(": ")
    return rest[:1].upper() + rest[1:]


def _events(service_id: int) -> list[Event]:
    """Those of the service among the newest of all: events have no index by object."""
    recent = Event.objects.order_by("-key").values_list("key", "object_type", "object_id")[:_LOOKED_AT]
    keys = [key for key, kind, id_ in recent if (kind, id_) == ("service", service_id)]
    return list(Event.objects.filter(key__in=keys[:_EVENTS]).order_by("-key"))


def sick() -> dict[str, Any]:
    """For the overview: how many are how. One query."""
    counts, flapping = dict[str, int](), 0
    rows = Service.objects.order_by().values_list("state", "flapping").annotate(Count("id"))
    for state, flaps, count in rows:
        counts[state] = counts.get(state, 0) + count
        flapping += count if flaps else 0
    return {
        "total": sum(counts.values()),
        "by_state": [(name, counts[name]) for name in STATES if counts.get(name)],
        "flapping": flapping,
    }

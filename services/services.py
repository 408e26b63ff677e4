"""The verbs of services: register, change, maintenance, remove; alerts' acknowledgement; silences.

Owns every write to those rows that a person asks for. What is seen of a service is written by `watch` alone.
"""

from __future__ import annotations

import datetime as dt
import shlex
from typing import Any

from django.db.models import F

from apps.access import app as find_app
from apps.access import apps as visible_apps
from apps.models import App
from consensus.gate import Transaction
from omni.kernel.context import Actor
from omni.kernel.errors import Conflict, FieldError, InvalidInput, NotFound
from omni.kernel.seal import seal
from omni.kernel.transitions import move
from omni.outgoing import policy as policies
from services import definitions
from services.definitions import Given
from services.models import Alert, Service, Silence
from services.states import ALERT, API, AlertStatus

SERVICES_MOST = 10_000  # as many as the replicated state has room for
_LONGEST_COMMAND = 4096  # of a task
_OPEN_TO_ALL = frozenset({"severity", "owner", "description"})


def create_service(tx: Transaction, given: Given, *, source: str = "api") -> Service:
    """Raises Conflict for a taken name, InvalidInput for what cannot be watched."""
    columns = _checked(tx, given, None)
    if Service.objects.filter(name=columns["name"]).exists():
        detail = f"There is a service named {columns['name']} already."
        raise Conflict(detail, code="service_exists", errors=[FieldError("/name", "service_exists", detail)])
    if Service.objects.count() >= SERVICES_MOST:
        raise Conflict(f"There are {SERVICES_MOST} services already.", code="too_many_services")
    service = Service(
        **columns,
        remedy_secret=seal(given.remedy_secret) if given.remedy_secret else "",
        source=source,
        state_since=tx.at,
        defined_at=tx.at,
        created_by=tx.actor.label,
        created_at=tx.at,
        updated_at=tx.at,
    )
    service.save(force_insert=True)
    change = {"name": service.name, "check": service.check_spec["type"], "source": source}
    tx.record("service.registered", "service", service.pk, change=change)
    return service


def update_service(tx: Transaction, service: Service, given: Given, *, by_source: bool = False) -> Service:
    """Change what differs. Raises Conflict for what only its source may change, InvalidInput."""
    columns = _checked(tx, given, service)
    if columns["name"] != service.name:
        raise Conflict("A service keeps its name: others depend on it.", code="service_name_fixed")
    changed = {name: value for name, value in columns.items() if getattr(service, name) != value}
    if given.remedy_secret and service.remedy_secret != "":
        changed["remedy_secret"] = seal(given.remedy_secret)
    elif given.remedy_secret or (columns["remedy"] is None and service.remedy_secret):
        changed["remedy_secret"] = seal(given.remedy_secret) if given.remedy_secret else ""
    if not by_source and service.source != "api" and set(changed) - _OPEN_TO_ALL - {"remedy_secret"}:
        where = "config.json" if service.source == "config" else "the platform itself"
        fields = ", ".join(sorted(_public(name) for name in set(changed) - _OPEN_TO_ALL))
        raise Conflict(f"{fields}: this service is defined by {where}.", code="service_fixed")
    if not set(changed) - {"remedy_secret"} and not changed.get("remedy_secret"):
        return service
    return _changed(tx, service, changed)


def _changed(tx: Transaction, service: Service, changed: dict[str, Any]) -> Service:
    fields: dict[str, Any] = {**changed, "revision": F("revision") + 1, "updated_at": tx.at}
    if set(changed) & set(definitions.WATCHING):
        fields["definition"] = F("definition") + 1
    if "check_spec" in changed:
        fields["defined_at"] = tx.at
    if Service.objects.filter(pk=service.pk, revision=service.revision).update(**fields) != 1:
        raise Conflict("The service was changed at the same time.", next="repeat the request")
    told = {
        _public(name): [getattr(service, name), value] for name, value in changed.items() if name != "remedy_secret"
    }
    change = {**told, "name": service.name, "fields": sorted(told)}
    tx.record("service.updated", "service", service.pk, change=change)
    service.refresh_from_db()
    return service


def set_maintenance(tx: Transaction, service: Service, on: bool, until: dt.datetime | None) -> Service:
    """While on, nothing of what is seen counts. With `until` it ends by itself. Raises InvalidInput."""
    if on and until is not None and until <= tx.at:
        raise InvalidInput(errors=[FieldError("/maintenance_until", "invalid", "It lies in the past.")])
    until = until if on else None
    if (service.maintenance, service.maintenance_until) == (on, until):
        return service
    Service.objects.filter(pk=service.pk).update(
        maintenance=on, maintenance_until=until, revision=F("revision") + 1, updated_at=tx.at
    )
    change = {"name": service.name, "maintenance": [service.maintenance, on],
              "until": until.isoformat() if until else None}  # fmt: skip
    tx.record("service.maintenance", "service", service.pk, change=change)
    service.refresh_from_db()
    return service


def delete_service(tx: Transaction, service: Service, *, by_source: bool = False) -> None:
    """Its alert is resolved by the watch. Raises Conflict for a part of the platform, or when others depend on it."""
    if service.source != "api" and not by_source:
        where = "config.json" if service.source == "config" else "the platform itself"
        raise Conflict(f"This service is defined by {where}.", code="service_fixed")
    dependents = [name for name, on in Service.objects.values_list("name", "depends_on") if service.name in on]
    if dependents:
        named = ", ".join(sorted(dependents)[:5])
        raise Conflict(f"Other services depend on it: {named}.", code="service_needed", next="PATCH those first")
    tx.record("service.removed", "service", service.pk, change={"name": service.name})
    service.delete()


def acknowledge(tx: Transaction, alert: Alert, note: str) -> Alert:
    """Somebody looks after it. Raises TransitionRefused when it is acknowledged or resolved already."""
    who = tx.actor.label
    move(Alert, alert.pk, table=ALERT, to=AlertStatus.ACKNOWLEDGED, owner=API, acknowledged_at=tx.at,
         acknowledged_by=who, note=note)  # fmt: skip
    tx.record("alert.acknowledged", "alert", alert.pk, change={"service": alert.service_name, "note": note})
    alert.refresh_from_db()
    return alert


def silence(
    tx: Transaction, *, pattern: str, reason: str, ends_at: dt.datetime, starts_at: dt.datetime | None
) -> Silence:
    """Nobody is told of alerts of services whose names match, until it ends. Raises InvalidInput."""
    begins = starts_at or tx.at
    if ends_at <= max(begins, tx.at):
        raise InvalidInput(errors=[FieldError("/ends_at", "invalid", "It must end after it begins, and after now.")])
    row = Silence(
        pattern=pattern, reason=reason, starts_at=begins, ends_at=ends_at, created_by=tx.actor.label, created_at=tx.at
    )
    row.save(force_insert=True)
    change = {"pattern": pattern, "reason": reason, "ends_at": ends_at.isoformat()}
    tx.record("silence.created", "silence", row.pk, change=change)
    return row


def end_silence(tx: Transaction, row: Silence) -> Silence:
    """At once. Raises Conflict when it has ended."""
    if Silence.objects.filter(pk=row.pk, ends_at__gt=tx.at).update(ends_at=tx.at, revision=F("revision") + 1) != 1:
        raise Conflict("The silence has ended already.", code="silence_ended")
    tx.record("silence.ended", "silence", row.pk, change={"pattern": row.pattern})
    row.refresh_from_db()
    return row


def find(ref: str | int, *, lock: bool = False) -> Service:
    """By id or name. Raises NotFound."""
    rows = Service.objects.select_for_update() if lock else Service.objects.all()
    text = str(ref)
    by_id = text.isascii() and text.isdigit() and len(text) < 19
    found = rows.filter(pk=int(text)).first() if by_id else rows.filter(name=text).first()
    if found is None:
        raise NotFound("There is no such service.", next="GET /services")
    return found


def _checked(tx: Transaction, given: Given, service: Service | None) -> dict[str, Any]:
    """The columns, with the remedy's app as its id. Raises InvalidInput."""
    columns = dict(given.columns)
    problems = []
    if service is None or service.source != "platform":
        problem = definitions.refused_address(columns["check_spec"], policies.configured())
        problems += [problem] if problem else []
    problems += _dependency_problems(columns["name"], columns["depends_on"])
    remedy = columns["remedy"]
    if remedy is not None and len(shlex.join(remedy.get("command", ()))) > _LONGEST_COMMAND:
        problems.append(FieldError("/remedy/command", "invalid", f"At most {_LONGEST_COMMAND} characters together."))
    if remedy is not None and "app" in remedy:
        try:
            columns["remedy"] = {**remedy, "app": _app(tx.actor, str(remedy["app"])).pk}
        except NotFound:
            problems.append(FieldError("/remedy/app", "not_found", "There is no such app."))
    if problems:
        raise InvalidInput(errors=problems)
    return columns


def _app(actor: Actor, ref: str) -> App:
    """By id, by name in the actor's org, by `org/name`, or by a name that only one org has: services are the
    platform's, and those of config.json are registered by nobody's org. Raises NotFound."""
    try:
        return find_app(actor, ref)
    except NotFound:
        org, slash, name = ref.rpartition("/")
        rows = visible_apps(actor).filter(name=name, **({"org__name": org} if slash else {}))
        found = [] if name.isdigit() else list(rows[:2])
        if len(found) != 1:
            raise
        return found[0]


def _dependency_problems(name: str, depends_on: list[str]) -> list[FieldError]:
    if not depends_on:
        return []
    known = dict(Service.objects.values_list("name", "depends_on"))
    found = []
    for place, one in enumerate(depends_on):
        if one == name:
            found.append(FieldError(f"/depends_on/{place}", "circle", "A service cannot depend on itself."))
        elif one not in known:
            found.append(FieldError(f"/depends_on/{place}", "not_found", f"There is no service {one}."))
        elif name in _below(one, known):
            found.append(FieldError(f"/depends_on/{place}", "circle", f"{one} depends on {name}."))
    return found


def _below(name: str, known: dict[str, list[str]]) -> set[str]:
    reached, todo = set[str](), [name]
    while todo:
        for one in known.get(todo.pop(), []):
            if one not in reached:
                reached.add(one)
                todo.append(one)
    return reached


def _public(column: str) -> str:
    return "check" if column == "check_spec" else column

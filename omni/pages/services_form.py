"""`/admin/service/new/` and `/admin/service/<id>/edit/`: the form of a service, and the call that it stands for.

Owns which fields there are and how text becomes JSON; what is right is the API's to say. A secret is write-only: an
empty field leaves it as it is.
"""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest

from apps.models import App
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.kernel.errors import FieldError, InvalidInput
from omni.pages.frame import Page, page
from services import definitions
from services import services as verbs

KINDS = {"http": "HTTP", "tcp": "TCP", "tls": "Certificate", "exec": "Command", "heartbeat": "Heartbeat"}
REMEDIES = {"": "nothing", "restart_app": "restart an app", "run_task": "run a task of an app", "webhook": "call a URL"}
_CHECK = {
    "http": ("url", "method", "status_min", "status_max", "contains"),
    "tcp": ("host", "port"),
    "tls": ("host", "port", "server_name", "warn_days", "fail_days", "verify"),
    "exec": ("command", "node"),
    "heartbeat": (),
}
_WHOLE = frozenset({"status_min", "status_max", "port", "healthy_threshold", "unhealthy_threshold", "vantage_points",
                    "max_per_hour"})  # fmt: skip
_DECIMAL = frozenset({"interval_s", "timeout_s", "start_period_s", "warn_days", "fail_days", "after_s", "backoff_s"})
_TEXT = ("description", "owner", "severity")
_RULES = ("interval_s", "timeout_s", "healthy_threshold", "unhealthy_threshold", "start_period_s", "vantage_points")
_OF_REMEDY = {"restart_app": ("app",), "run_task": ("app", "command"), "webhook": ("url", "secret")}
_BOUNDS = ("after_s", "backoff_s", "max_per_hour")
SPANS = {"15": "15 min", "60": "1 h", "240": "4 h", "1440": "1 d", "10080": "7 d"}  # minutes


@page("platform:write")
def new(request: HttpRequest, actor: Actor) -> Page:
    kind = request.GET.get("type", "http")
    kind = kind if kind in KINDS else "http"
    values = {"kind": kind, "kinds": KINDS, "given": {}, "check": {}, "remedy": {}, "remedies": REMEDIES, "open": True}
    return Page("service_form.html", "A new service", values, above=(("Services", "/admin/service/"),))


@page("platform:write")
def edit(request: HttpRequest, actor: Actor, service: int) -> Page:
    found = verbs.find(service)
    given = definitions.definition(found)
    check, remedy = _as_text(given["check"]), _as_text(given["remedy"] or {})
    if "app" in remedy:  # kept by its id; by its name when it is looked at
        name = App.objects.filter(pk=remedy["app"]).values_list("name", flat=True).first()
        remedy["app"] = name or remedy["app"]
    values = {
        "service": found, "kind": given["check"]["type"], "given": _as_text(given), "check": check, "remedy": remedy,
        "remedies": REMEDIES, "open": found.source == "api", "has_secret": bool(found.remedy_secret),
    }  # fmt: skip
    above = (("Services", "/admin/service/"), (found.name, f"/admin/service/{found.pk}/"))
    return Page("service_form.html", f"Change {found.name}", values, above=above)


def _as_text(given: Mapping[str, Any]) -> dict[str, Any]:
    """Field → what stands in its input."""
    shown: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, list):
            shown[name] = shlex.join(value) if name == "command" else " ".join(value)
        else:
            shown[name] = f"{value:g}" if isinstance(value, float) else value
    return shown


def registered(form: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `POST /services`. Raises InvalidInput."""
    kind = form.get("type", "")
    check = {"type": kind, **_read(form, "check_", _CHECK.get(kind, ()))}
    body: dict[str, Any] = {"name": form.get("name", "").strip(), "check": check, **_read(form, "", (*_TEXT, *_RULES))}
    if form.get("depends_on", "").strip():
        body["depends_on"] = form["depends_on"].replace(",", " ").split()
    remedy = _remedy(form)
    return {**body, "remedy": remedy} if remedy else body


def changed(form: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch: only what was changed in the form. Raises InvalidInput."""
    patch: dict[str, Any] = {name: form[name] for name in _TEXT if _differs(form, name)}
    rules = [name for name in _RULES if _differs(form, name)]
    patch |= dict.fromkeys(rules) | _read(form, "", rules)
    kind = form.get("type", "")
    check = [name for name in _CHECK.get(kind, ()) if _differs(form, f"check_{name}")]
    if check:
        patch["check"] = {"type": kind, **dict.fromkeys((name for name in check if name == "node"), ""),
                          **_read(form, "check_", check)}  # fmt: skip
    if _differs(form, "depends_on"):
        patch["depends_on"] = form["depends_on"].replace(",", " ").split()
    named = [f"remedy_{name}" for names in _OF_REMEDY.values() for name in names]
    if any(_differs(form, name) for name in ("remedy", *named, *(f"remedy_{name}" for name in _BOUNDS))):
        patch["remedy"] = _remedy(form)
    if not patch:
        raise InvalidInput("Nothing was changed in the form.", code="no_change")
    return patch


def changes(body: dict[str, Any] | None, form: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What the question shows: field, now, then."""
    rows = []
    for name in form:
        before = f"was_{name}"
        if before in form and _differs(form, name) and name != "remedy_secret":
            rows.append((name.replace("_", ".", 1) if name.startswith(("check_", "remedy_")) else name,
                         form[before], form[name]))  # fmt: skip
    if form.get("remedy_secret"):
        rows.append(("remedy.secret", "a secret, or none", "another secret"))
    return rows


def _differs(form: Mapping[str, Any], name: str) -> bool:
    return name in form and form[name].strip() != form.get(f"was_{name}", "").strip()


def _remedy(form: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = form.get("remedy", "")
    if kind not in _OF_REMEDY:
        return None
    return {"type": kind, **_read(form, "remedy_", (*_OF_REMEDY[kind], *_BOUNDS))}


def _read(form: Mapping[str, Any], prefix: str, names: Any) -> dict[str, Any]:
    """The fields that were filled in, as JSON. Raises InvalidInput for what is no number."""
    found: dict[str, Any] = {}
    for name in names:
        text = form.get(f"{prefix}{name}", "").strip()
        if not text:
            continue
        pointer = f"/{prefix.replace('_', '/')}{name}"
        if name in _WHOLE or name in _DECIMAL:
            found[name] = _number(text, pointer, whole=name in _WHOLE)
        elif name == "command":
            found[name] = _command(text, pointer)
        else:
            found[name] = text == "true" if name == "verify" else text
    return found


def _number(text: str, pointer: str, *, whole: bool) -> float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        wanted = "A whole number is wanted." if whole else "A number is wanted."
        raise InvalidInput(errors=[FieldError(pointer, "invalid", wanted)]) from None


def _command(text: str, pointer: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidInput(errors=[FieldError(pointer, "invalid", str(error))]) from None


def until(form: Mapping[str, Any]) -> dict[str, str]:
    """`ends_at`, settled when the question is asked: the same press of a button says the same however often it is
    sent; and `until`, the same in words. Without an end, only these."""
    if form.get("ends_at"):
        return {}
    minutes = form.get("minutes", "")
    if not minutes:
        return {"until": "until it is ended"}
    if minutes not in SPANS:
        raise InvalidInput(errors=[FieldError("/minutes", "invalid", "One of the offered spans is wanted.")])
    ends = (clock.now() + dt.timedelta(minutes=int(minutes))).astimezone(dt.UTC)
    return {"ends_at": ends.strftime("%Y-%m-%dT%H:%M:%SZ"), "until": ends.strftime("until %d %b %H:%M UTC")}


def maintenance(form: Mapping[str, Any]) -> dict[str, Any]:
    on = form.get("maintenance") == "true"
    return {"maintenance": on, **({"maintenance_until": form["ends_at"]} if on and form.get("ends_at") else {})}


def silence(form: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `POST /silences`, and of an alert's without the pattern."""
    return {name: form[name].strip() for name in ("pattern", "reason", "ends_at") if form.get(name)}

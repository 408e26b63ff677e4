"""`/admin/app/<app>/config/`: what an app is given: environment, memory, processor, health check, strategy.

Owns the form and what it means as a change. A secret is write-only: an empty field leaves it as it is.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, QueryDict

from apps import access
from apps import services as apps
from apps.configuration import shown_env
from apps.representation import app as show
from omni.kernel.context import Actor
from omni.kernel.errors import FieldError, InvalidInput
from omni.pages.app import above, head
from omni.pages.frame import Page, page

SPARE = 2  # empty rows for new variables
_NUMBERS = {"memory_mb": int, "cpu": float, "cpu_limit": float, "stop_timeout_s": float}


@page("apps:read")
def view(request: HttpRequest, actor: Actor, app: str) -> Page:
    found = access.app(actor, app)
    revision = apps.current_revision(found)
    env = shown_env(revision)
    rows = [{"key": key, "secret": isinstance(value, dict), "value": "" if isinstance(value, dict) else value}
            for key, value in env.items()]  # fmt: skip
    rows += [{"key": "", "secret": False, "value": "", "new": True} for _ in range(SPARE)]
    values = {**head(actor, found, "config"), "env": rows, "shown": show(found, env), "revision": revision}
    return Page("config.html", f"Configuration of {found.name}", values, above=above(found))


def body(form: QueryDict) -> dict[str, Any]:
    """The merge patch that the form stands for: only what was changed in it. Raises InvalidInput."""
    patch: dict[str, Any] = {}
    env = _env(form)
    if env:
        patch["env"] = env
    for name, kind in _NUMBERS.items():
        given, was = form.get(name, "").strip(), form.get(f"was_{name}", "").strip()
        if given == was:
            continue
        try:
            patch[name] = kind(given) if given else None
        except ValueError:
            raise InvalidInput(errors=[FieldError(f"/{name}", "invalid", "A number is wanted.")]) from None
    for name in ("description", "restart_policy"):
        if name in form and form[name] != form.get(f"was_{name}"):
            patch[name] = form[name]
    if not patch:
        raise InvalidInput("Nothing was changed in the form.", code="no_change")
    return patch


def _env(form: QueryDict) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for number in range(len([name for name in form if name.startswith("env_key_")])):
        key, was = form.get(f"env_key_{number}", "").strip(), form.get(f"env_was_{number}", "")
        value, before = form.get(f"env_value_{number}", ""), form.get(f"env_before_{number}", "")
        secret, was_secret = bool(form.get(f"env_secret_{number}")), bool(form.get(f"env_hidden_{number}"))
        if was and (form.get(f"env_gone_{number}") or key != was):
            changed[was] = None
            if not key or form.get(f"env_gone_{number}"):
                continue
            if was_secret and not value:
                raise InvalidInput(errors=[FieldError(f"/env/{key}", "required", "A renamed secret needs its value.")])
        if not key:
            continue
        if secret and (value or not was_secret or key != was):
            changed[key] = {"value": value, "secret": True}
        elif not secret and was_secret and not value:
            raise InvalidInput(errors=[FieldError(f"/env/{key}", "required", "A value is wanted to show it openly.")])
        elif not secret and (value != before or was_secret or key != was):
            changed[key] = value
    return changed


def changes(patch: dict[str, Any] | None, form: QueryDict) -> list[tuple[str, str, str]]:
    """For the question: what, now, then. Secrets are not repeated."""
    found = []
    before = {form.get(f"env_was_{n}", ""): n for n in range(len([k for k in form if k.startswith("env_key_")]))}
    for key, value in ((patch or {}).get("env") or {}).items():
        number = before.get(key)
        hidden = number is not None and form.get(f"env_hidden_{number}")
        now = "not set" if number is None else "secret" if hidden else form.get(f"env_before_{number}", "")
        then = "removed" if value is None else "a new secret" if isinstance(value, dict) else value
        found.append((key, now, then))
    for name, value in (patch or {}).items():
        if name != "env":
            found.append((name, form.get(f"was_{name}", "") or "not set", "not set" if value is None else str(value)))
    return found

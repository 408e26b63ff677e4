"""A button: one call of the API, made in this process with the rights of the session.

Owns the way from a form to that call and back: rehearse it and show what would happen, then do it once and say what
happened. The call goes through the API's own view, so that verbs, gate, permissions and refusals are the same; the form
has come to the leader already, because the front forwards every write.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import orjson
from django.contrib import admin, messages
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import resolve
from django.utils.http import url_has_allowed_host_and_scheme

from omni.kernel.errors import InvalidInput, NotFound, OmniError
from omni.pages import frame, plans
from omni.pages.actions import ACTIONS, Action
from omni.rest import problem

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@:-]{0,149}")
_MOVES_INSTANCES = ("/app", "/nodes", "/cluster")  # elsewhere a dry run has no plan to show, only refusals


@dataclass(frozen=True, slots=True)
class Called:
    """What the API answered."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status < 400


def call(
    request: HttpRequest, method: str, path: str, body: dict[str, Any] | None, *, query: dict[str, str] | None = None,
    key: str = "",
) -> Called:  # fmt: skip
    """The API's answer to `method path` from this session. The form's own token has been checked before."""
    content = orjson.dumps(body) if body else b""
    environ = {name: value for name, value in request.META.items() if not name.startswith("HTTP_IF_")}
    environ |= {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": urlencode(query or {}),
        "CONTENT_TYPE": "application/json" if content else "", "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": io.BytesIO(content), "HTTP_ACCEPT": "application/json",
    }  # fmt: skip
    environ.pop("HTTP_AUTHORIZATION", None)
    environ.pop("HTTP_IDEMPOTENCY_KEY", None)
    if key:
        environ["HTTP_IDEMPOTENCY_KEY"] = key
    inner = WSGIRequest(environ)
    inner.user = request.user
    inner.session = request.session
    inner._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
    view, args, given = resolve(path)
    answer = view(inner, *args, **given)
    if hasattr(answer, "render"):
        answer.render()
    parsed = orjson.loads(answer.content) if answer.content else {}
    return Called(answer.status_code, parsed if isinstance(parsed, dict) else {}, dict(answer.items()))


def act(request: HttpRequest, name: str) -> HttpResponse:
    """`POST /admin/do/<name>/`: step `ask` shows what would happen, step `do` does it."""
    try:
        action = ACTIONS.get(name)
        if action is None or request.method != "POST":
            raise NotFound("There is no such button.")
        step = request.POST.get("step", "ask")
        if step == "ask" and (settled := action.settled(request.POST)):
            request.POST = form = request.POST.copy()  # type: ignore[assignment]
            form.update(settled)
        path = action.path.format_map({ref: _reference(request, ref) for ref in action.references})
        body = action.body(request.POST)
        if step == "ask" and action.asks:
            return _ask(request, action, path, body)
        return _do(request, action, path, body)
    except OmniError as error:
        return _refused(request, name, Called(error.status, problem.body(error)))


act_view = admin.site.admin_view(act)


def _reference(request: HttpRequest, name: str) -> str:
    text = request.POST.get(name, "")
    if not _REFERENCE.fullmatch(text):
        raise InvalidInput(f"The form does not say which {name} is meant.", next="load the page again")
    return text


def _query(request: HttpRequest) -> dict[str, str]:
    return {"override_freeze": "true"} if request.POST.get("override") else {}


def _ask(request: HttpRequest, action: Action, path: str, body: dict[str, Any] | None) -> HttpResponse:
    """The dry run, and the button that makes it real."""
    plan = None
    if action.rehearses:
        found = call(request, action.method, path, body, query={**_query(request), "dry_run": "true"})
        if not found.ok:
            return _refused(request, action.name, found)
        plan = plans.told(found.body) if action.path.startswith(_MOVES_INSTANCES) else None
    kept = [(name, value) for name, values in request.POST.lists() for value in values
            if name not in ("step", "csrfmiddlewaretoken", "key")]  # fmt: skip
    values = {
        "action": action, "plan": plan, "kept": kept, "key": secrets.token_hex(16), "path": path,
        "question": _said(action.question, request),
        "body": orjson.dumps(body).decode() if body else "", "back": _back(request),
        "changes": action.changes(body, request.POST),
        "typed": action.typed and request.POST.get(action.typed, ""),
    }  # fmt: skip
    return _shown(request, "ask.html", action.title, values)


def _do(request: HttpRequest, action: Action, path: str, body: dict[str, Any] | None) -> HttpResponse:
    if action.typed and request.POST.get("typed", "").strip() != request.POST.get(action.typed):
        raise InvalidInput(f"Type {request.POST.get(action.typed)} to confirm.")
    query = _query(request)
    if action.confirms:
        query["confirm"] = request.POST.get("typed", "").strip()
    found = call(request, action.method, path, body, query=query, key=_key(request))
    if not found.ok:
        return _refused(request, action.name, found)
    said = _said(action.done, request) + plans.outcome(found.body)
    secret = str(found.body.get("token") or "")
    if secret:
        return _shown(request, "secret.html", action.title, {"secret": secret, "back": _back(request)})
    where = action.after or _back(request)
    if _by_script(request):
        if action.after:  # a toast of the page that is left would not be seen
            messages.success(request, said)
        answer = {"ok": True, "said": said, "to": action.after, "follow": plans.follow(found.body)}
        return HttpResponse(orjson.dumps(answer), content_type="application/json")
    messages.success(request, said)
    return HttpResponseRedirect(where)


def _key(request: HttpRequest) -> str:
    """Names this press of the button: whatever is repeated, by whom, happens once."""
    given = request.POST.get("key", "")
    return f"console-{given}" if given.isalnum() and len(given) <= 64 else ""


def _refused(request: HttpRequest, name: str, found: Called) -> HttpResponse:
    if found.status == 503 and found.headers.get("Omni-Outcome") != "unknown":
        # in the API's own words, so that the front can ask the next leader
        headers = {"Omni-Outcome": "not-applied", "Retry-After": "1"}
        return HttpResponse(orjson.dumps(found.body), content_type=problem.MEDIA_TYPE, status=503, headers=headers)
    kept = [(field_, value) for field_, values in request.POST.lists() for value in values
            if field_ not in ("csrfmiddlewaretoken",)]  # fmt: skip
    values = {
        "problem": found.body, "back": _back(request), "name": name, "kept": kept,
        "frozen": found.body.get("code") == "frozen",
    }  # fmt: skip
    return _shown(request, "problem.html", str(found.body.get("title", "That was refused")), values, found.status)


def _shown(request: HttpRequest, template: str, title: str, values: dict[str, Any], status: int = 200) -> HttpResponse:
    """In a dialog of the page it came from, or as a page of its own without JavaScript."""
    context: dict[str, Any] = {**values, "title": title}
    if _by_script(request):
        context["frame"] = "console/live.html"
    else:
        context |= {"page": frame.Page(template, title), "frame": "console/frame.html"}
    body = render_to_string(f"console/{template}", context, request)
    return HttpResponse(body, status=status, headers={"Cache-Control": "no-store", "Omni-Outcome": "not-applied"})


def _by_script(request: HttpRequest) -> bool:
    return request.headers.get("X-Console") == "1"


def _back(request: HttpRequest) -> str:
    given = request.POST.get("back") or request.headers.get("Referer", "")
    path = "/" + given.split("/", 3)[-1] if "://" in given else given
    fine = path.startswith("/admin/") and url_has_allowed_host_and_scheme(path, allowed_hosts=None)
    return path if fine and not path.startswith("/admin/do/") else "/admin/"


def _said(words: str, request: HttpRequest) -> str:
    """A sentence with the form's values in it."""
    return " ".join(words.format_map(_Words(request.POST)).split())


class _Words(dict[str, str]):
    """A form's values for a sentence; what is missing is left out."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__({name: str(given.get(name, "")) for name in given})

    def __missing__(self, name: str) -> str:
        return ""

"""The console's buttons as data: which call of the API each one is, what it asks first, and what it says afterwards.

Owns the table. Who may press one is decided by the API's view, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

from omni.kernel.errors import FieldError, InvalidInput
from omni.pages import config, services_form

Body = dict[str, Any] | None


def _none(_form: QueryDict) -> Body:
    return None


def _nothing(_form: QueryDict) -> dict[str, str]:
    return {}


def _no_changes(_body: Body, _form: QueryDict) -> list[tuple[str, str, str]]:
    return []


@dataclass(frozen=True, slots=True)
class Action:
    """`path` names its `references`, which are fields of the form; `question` and `done` may name any field.

    `settled`: further values of the form that the question fixes, such as a time from now on.
    `asks`: shows the dry run first. `typed`: the field whose value has to be typed to confirm;
    `confirms`: the API is told what was typed, because data may go with it. `after`: where to go
    when what the page showed is gone.
    """

    name: str
    title: str
    method: str
    path: str
    references: tuple[str, ...]
    question: str
    done: str
    button: str = ""
    body: Callable[[QueryDict], Body] = _none
    changes: Callable[[Body, QueryDict], list[tuple[str, str, str]]] = _no_changes
    settled: Callable[[QueryDict], dict[str, str]] = _nothing
    asks: bool = True
    rehearses: bool = True
    danger: bool = False
    typed: str = ""
    confirms: bool = False
    after: str = ""


def _number(form: Mapping[str, Any], name: str) -> int:
    text = str(form.get(name, "")).strip()
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidInput(errors=[FieldError(f"/{name}", "invalid", "A whole number is wanted.")])
    return int(text)


def _scale(form: QueryDict) -> Body:
    count, kind = _number(form, "instances"), form.get("type", "")
    return {"processes": {kind: count}} if kind not in ("", "web") else {"instances": count}


def _release(form: QueryDict) -> Body:
    return {"release": _number(form, "release")} if form.get("release") else None


_APP, _INSTANCE, _DEPLOYMENT = "/app/{app}", "/app/{app}/instances/{instance}", "/app/{app}/deployments/{deployment}"
_ONE, _TWO, _THREE = ("app",), ("app", "instance"), ("app", "deployment")

_TABLE = (
    Action("scale", "Scale", "POST", _APP + "/scale", _ONE, "Run {instances} {type} instances of {name}?",
           "{name} is to have {instances} {type} instances.", button="Scale", body=_scale),
    Action("start", "Start", "POST", _APP + "/start", _ONE, "Start {name}?", "{name} starts.", button="Start"),
    Action("stop", "Stop", "POST", _APP + "/stop", _ONE,
           "Stop every instance of {name}? It answers no requests until it is started again.", "{name} stops.",
           button="Stop it", danger=True),
    Action("restart", "Restart", "POST", _APP + "/restart", _ONE,
           "Replace every instance of {name} by a new one, the new ones first?", "{name} restarts.", button="Restart"),
    Action("delete", "Delete", "DELETE", _APP, _ONE,
           "Delete {name} for good? Its instances, logs, builds, releases, figures and volumes go with it.",
           "{name} is being deleted.", button="Delete for good", danger=True, typed="name", confirms=True,
           after="/admin/app/"),
    Action("rollback", "Roll back", "POST", _APP + "/rollback", _ONE,
           "Go back to {shown}? Code and configuration of that release come back.", "{name} goes back to {shown}.",
           button="Roll back", body=_release),
    Action("deploy", "Deploy", "POST", _APP + "/release/{version}/deploy", ("app", "version"),
           "Deploy version {version} of {name} with the configuration of today?",
           "Version {version} of {name} is being deployed.", button="Deploy"),
    Action("restart-instance", "Restart an instance", "POST", _INSTANCE + "/restart", _TWO,
           "Restart slot {slot} in place?", "Slot {slot} restarts.", button="Restart it"),
    Action("stop-instance", "Stop an instance", "POST", _INSTANCE + "/stop", _TWO,
           "Stop slot {slot}? As long as the app is to run, another instance takes its place.", "Slot {slot} stops.",
           button="Stop it", danger=True),
    Action("cancel", "Cancel the deployment", "POST", _DEPLOYMENT + "/cancel", _THREE,
           "Cancel deployment {deployment}? What ran before comes back.", "Deployment {deployment} is cancelled.",
           button="Cancel it", danger=True),
    Action("pause", "Pause", "POST", _DEPLOYMENT + "/pause", _THREE, "", "Deployment {deployment} is paused.",
           asks=False),
    Action("resume", "Resume", "POST", _DEPLOYMENT + "/resume", _THREE, "", "Deployment {deployment} goes on.",
           asks=False),
    Action("promote", "Promote", "POST", _DEPLOYMENT + "/promote", _THREE,
           "Let the new release take over?", "The new release takes over.", button="Promote"),
    Action("cancel-build", "Cancel the build", "POST", _APP + "/builds/{build}/cancel", ("app", "build"),
           "Cancel build {build} of version {shown}?", "Build {build} is to end.", button="Cancel it", danger=True,
           rehearses=False),
)  # fmt: skip

_ORG = "/orgs/{org}"


def _filled(*names: str) -> Callable[[QueryDict], Body]:
    """The fields of these names that were filled in."""

    def body(form: QueryDict) -> Body:
        return {name: form[name] for name in names if form.get(name)}

    return body


def _quota(form: QueryDict) -> Body:
    names = ("max_apps", "max_instances", "max_memory_mb", "max_builds_at_once")
    return {name: _number(form, name) if form.get(name) else None for name in names if name in form}


def _password(form: QueryDict) -> Body:
    if form.get("password") != form.get("again"):
        raise InvalidInput(errors=[FieldError("/again", "invalid", "The new password was typed in two ways.")])
    return _filled("current", "password")(form)


def _token(form: QueryDict) -> Body:
    given = {name: form[name] for name in ("name", "org", "role") if form.get(name)}
    return {**given, "expires_at": f"{form['expires']}T23:59:59Z"} if form.get("expires") else given


_MORE = (
    Action("configure", "Change the configuration", "PATCH", _APP, _ONE, "Change {name} like this?",
           "{name} is changed.", button="Change it", body=config.body, changes=config.changes),
    Action("create-app", "A new app", "POST", "/app/create", (), "", "App {name} is there.",
           body=_filled("name", "org", "description"), asks=False),
    Action("drain", "Drain", "POST", "/nodes/{node}/drain", ("node",),
           "Drain {name}? Nothing new goes there, and what runs there moves away.", "{name} is being drained.",
           button="Drain it", danger=True),
    Action("activate", "Take into use", "POST", "/nodes/{node}/activate", ("node",), "",
           "{name} takes instances again.", asks=False),
    Action("transfer", "Hand over the leadership", "POST", "/cluster/transfer", (),
           "Hand the leadership over? Writes wait for a moment; nothing that runs is touched.",
           "The leadership was handed over.", button="Hand over", body=_filled("to")),
    Action("remove-cluster-member", "Remove a member", "DELETE", "/cluster/members/{member}", ("member",),
           "Remove {member} from the cluster? It no longer counts for a majority.", "{member} is no member any more.",
           button="Remove it", danger=True, typed="member"),
    Action("create-org", "A new org", "POST", "/orgs", (), "", "Org {name} is there.",
           body=_filled("name", "description"), asks=False),
    Action("set-quota", "Set quotas", "PATCH", _ORG + "/quota", ("org",), "", "The quotas of {org} are set.",
           body=_quota, asks=False),
    Action("add-member", "Add a member", "POST", _ORG + "/members", ("org",), "", "{user} is {role} in {org}.",
           body=_filled("user", "role", "password"), asks=False),
    Action("remove-member", "Remove a member", "DELETE", _ORG + "/members/{user}", ("org", "user"),
           "Remove {user} from {org}? The tokens that {user} made there go too.",
           "{user} is no member of {org} any more.", button="Remove", danger=True),
    Action("change-password", "Change the password", "POST", "/me/password", (), "", "Your password is changed.",
           body=_password, asks=False, after="/admin/account/"),
    Action("create-token", "A new token", "POST", "/tokens", (), "", "The token is made.", body=_token, asks=False),
    Action("revoke-token", "Revoke a token", "DELETE", "/tokens/{token}", ("token",),
           "Revoke the token {shown}? Whoever uses it is refused from then on.", "The token {shown} is revoked.",
           button="Revoke it", danger=True),
)  # fmt: skip

_SERVICE, _ALERT = "/services/{service}", "/alerts/{alert}"
_SERVICES = (
    Action("create-service", "Watch a service", "POST", "/services", (), "", "{name} is watched from now on.",
           body=services_form.registered, asks=False, after="/admin/service/"),
    Action("change-service", "Change a service", "PATCH", _SERVICE, ("service",), "Change {name} like this?",
           "{name} is changed.", button="Change it", body=services_form.changed, changes=services_form.changes),
    Action("delete-service", "Watch it no more", "DELETE", _SERVICE, ("service",),
           "Watch {name} no more? Its definition goes, and its alert is resolved; what was checked stays for a while.",
           "{name} is watched no more.", button="Remove it", danger=True, typed="name", after="/admin/service/"),
    Action("begin-maintenance", "Maintenance", "PATCH", _SERVICE, ("service",),
           "Put {name} under maintenance {until}? Until then nothing that is seen of it counts, nothing is mended, and "
           "its alert is resolved.",
           "{name} is under maintenance.", button="Begin", body=services_form.maintenance, settled=services_form.until),
    Action("end-maintenance", "Maintenance", "PATCH", _SERVICE, ("service",), "", "{name} is watched again.",
           body=services_form.maintenance, asks=False),
    Action("acknowledge-alert", "Acknowledge", "POST", _ALERT + "/ack", ("alert",), "",
           "The alert of {name} is acknowledged.", body=_filled("note"), asks=False),
    Action("silence-alert", "Silence", "POST", _ALERT + "/silence", ("alert",),
           "Tell nobody of alerts of {name} {until}? They are opened and shown all the same.", "{name} is silenced.",
           button="Silence it", body=services_form.silence, settled=services_form.until),
    Action("create-silence", "A new silence", "POST", "/silences", (),
           "Tell nobody of alerts of services like {pattern} {until}? They are opened and shown all the same.",
           "Services like {pattern} are silenced.", button="Silence them", body=services_form.silence,
           settled=services_form.until),
    Action("end-silence", "End a silence", "DELETE", "/silences/{silence}", ("silence",),
           "End the silence over {pattern} now? What is wrong at the moment is told at once.", "The silence is over.",
           button="End it"),
)  # fmt: skip

ACTIONS: dict[str, Action] = {action.name: action for action in (*_TABLE, *_MORE, *_SERVICES)}

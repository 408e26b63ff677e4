"""Events as sentences: who did what to which object, with a way there.

Owns the words. Names of apps come from one query for all of them; what has no words of its own is shown by its kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from apps.models import App
from omni.kernel.models import Event
from omni.pages.words import NOTHING

_SAID = {
    "app.created": "app {app} was created",
    "app.updated": "{app} was changed: {fields}",
    "app.status_changed": "{app} is {status}",
    "app.desired_state_changed": "{app} is to be {desired_state}",
    "app.deploy_wished": "{app} is to run release {release}",
    "app.rollback_wished": "{app} is to go back to release {release}",
    "app.config_wished": "{app} is to run with a new configuration",
    "app.scale_wished": "{app} is to be scaled",
    "app.start_wished": "{app} is to be started",
    "app.stop_wished": "{app} is to be stopped",
    "app.restart_wished": "{app} is to be restarted",
    "app.configuration_restored": "{app} has its earlier configuration {from} again",
    "release.created": "release {number} of {app} (version {version})",
    "build.queued": "build of {app} {version} was queued",
    "build.claimed": "build of {app} has begun",
    "build.succeeded": "build of {app} {version} succeeded: release {release}",
    "build.failed": "build of {app} {version} failed: {code}",
    "build.cancelled": "build of {app} was cancelled",
    "deployment.created": "deployment of {app} ({kind})",
    "deployment.started": "deployment {id} of {app} has begun",
    "deployment.ledger_closed": "nothing is left to do for deployment {id} of {app}",
    "instance.stop_asked": "instance {id} of {app} is to stop",
    "instance.drained": "instance {id} of {app} gets no more requests",
    "instance.reported": "instance {id} of {app} was reported anew",
    "instances.removed_from_node": "what has ended was removed from {name}",
    "instance.placed": "slot {slot} of {app} was placed on {node}",
    "node.drained": "node {name} is drained",
    "node.activated": "node {name} takes instances again",
    "org.created": "org {name} was created",
    "token.created": "token {prefix} was made",
    "token.revoked": "token {prefix} was revoked",
    "user.created": "user {username} was made",
    "user.password_changed": "{username} changed the password",
    "member.set": "a member is {role}",
    "member.removed": "member {username} was removed",
    "cluster.transfer_requested": "the leadership is handed over to {to}",
    "node.joined": "node {name} joined",
    "node.lost": "node {name} was lost",
    "node.ready": "node {name} is ready",
    "node.returned": "node {name} came back",
    "service.registered": "service {name} is watched",
    "service.updated": "service {name} was changed: {fields}",
    "service.removed": "service {name} is watched no more",
    "service.state_changed": "service {name} is {state}: {detail}",
    "service.seen": "service {name}: {detail}",
    "service.maintenance": "service {name} is under maintenance: {maintenance}",
    "alert.opened": "alert: {service}: {detail}",
    "alert.updated": "alert: {service}: {detail}",
    "alert.acknowledged": "the alert of {service} was acknowledged",
    "alert.resolved": "the alert of {service} is resolved: {why}",
    "silence.created": "alerts of {pattern} are silenced: {reason}",
    "silence.ended": "alerts of {pattern} are told again",
    "remedy.started": "remedy for {service}: {type}",
    "remedy.succeeded": "remedy for {service} succeeded: {detail}",
    "remedy.failed": "remedy for {service} failed: {detail}",
    "app.purged": "what was left of a deleted app was removed",
    "release.not_deployed": "release {release} of {app} is not deployed: {frozen}",
}  # fmt: skip
# What the platform notes for itself: on the page of all events, not on the short lists.
QUIET = frozenset({
    "deployment.ledger_closed", "deployment.progressed", "instance.reported", "instance.dealt_with", "instance.drained",
    "instances.removed_from_node", "instances.forgotten", "instance.starting", "instance.stopping", "node.reported",
    "nodes.to_report_anew", "build.progressed", "retention.applied", "release.created", "app.deploy_wished",
    "service.seen", "alert.updated", "notice.queued", "notice.tried", "notice.sent", "notice.refused",
})  # fmt: skip
_LOOKED_AT = 200
_BAD = ("failed", "crashed", "lost", "refused", "unhealthy")


def telling(rows: QuerySet[Event], count: int) -> list[Event]:
    """The newest that tell a person something, among the newest few hundred."""
    found = rows.order_by("-key")[:_LOOKED_AT]
    return [event for event in found if event.kind not in QUIET][:count]


def told(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Rows for a list of events, in their order."""
    ids = {event.app_id for event in events if event.app_id}
    names = dict(App.objects.filter(pk__in=ids).values_list("pk", "name")) if ids else {}
    return [_row(event, names) for event in events]


def _row(event: Event, names: dict[int, str]) -> dict[str, Any]:
    app = names.get(event.app_id or 0, f"app {event.app_id}" if event.app_id else "")
    return {
        "event": event,
        "text": sentence(event, app),
        "address": address(event),
        "tone": _tone(event),
    }


def sentence(event: Event, app: str) -> str:
    """`{name}` of a change is its new value."""
    change = event.change if isinstance(event.change, dict) else {}
    values = {name: _after(value) for name, value in change.items()}
    words = _SAID.get(event.kind)
    text = (
        words.format_map(_Known({**values, "app": app, "id": str(event.object_id)}))
        if words
        else _plain(event, app, values)
    )
    return text if app and text.startswith(app) else text[:1].upper() + text[1:]


def _plain(event: Event, app: str, values: dict[str, str]) -> str:
    noun, _, verb = event.kind.partition(".")
    of = f" of {app}" if app and noun != "app" else f" {app}" if app else ""
    status = f" → {values['status']}" if values.get("status") not in (None, verb) else ""
    number = f" {event.object_id}" if event.object_id and noun not in ("app",) else ""
    return f"{noun.replace('_', ' ')}{number}{of}: {verb.replace('_', ' ')}{status}"


def _after(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        value = value[1]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return NOTHING if value is None else str(value)


def address(event: Event) -> str:
    """The page of the object; the app's where the object has none."""
    if event.object_type == "node":
        return f"/admin/nodes/{event.object_id}/"
    if event.object_type == "service":
        return f"/admin/service/{event.object_id}/"
    if event.object_type == "alert":
        return "/admin/alerts/"
    if event.app_id is None:
        return ""
    base = f"/admin/app/{event.app_id}/"
    pages = {"build": "builds", "deployment": "deployments", "instance": "instances"}
    folder = pages.get(event.object_type)
    return f"{base}{folder}/{event.object_id}/" if folder else base


def _tone(event: Event) -> str:
    verb = event.kind.rpartition(".")[2]
    change = event.change if isinstance(event.change, dict) else {}
    status = next((_after(change[name]) for name in ("status", "state") if name in change), "")
    if any(word in verb for word in _BAD) or status in _BAD or event.kind == "alert.opened":
        return "bad"
    if status == "degraded" or verb in ("drained", "cancelled"):
        return "warn"
    well = verb in ("succeeded", "finished", "healthy", "resolved") or status in ("running", "succeeded", "healthy")
    return "ok" if well else "off"


class _Known(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"

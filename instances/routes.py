"""Which host names the ingress serves and which instances stand behind them: `agent.routing.Routes` from rows.

Owns the rule of who gets requests: of the process type web, running, healthy, wanted, of an app that is to run, and on
the side of its rollout that takes requests (`rollout.traffic`). An app that has none of them is served by those of its
instances whose node is lost, as long as it is: a node that fell silent may well run what it ran. Reads only; kept in
this process as long as no event touched an app, so that an ingress that asks after every write costs almost nothing.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from typing import Any

import orjson
from django.conf import settings
from django.db.models import F, OuterRef, Q, QuerySet, Subquery

from apps.models import App, DesiredState, Domain
from apps.processes import WEB
from instances import draining
from instances.models import Deployment, Instance
from instances.rollout.traffic import Split
from instances.states import InstanceStatus, NodeStatus
from omni.kernel.models import Event

_COLUMNS = ("app_id", "id", "address", "release_id", "deployment_id")
_lock = threading.Lock()
_kept: tuple[int, bytes, str] | None = None  # newest event key when it was made, the hosts as JSON, their digest
# Of the events of instances only these can change a route.
_INSTANCE_KINDS = frozenset(
    {"instance.running", "instance.health_changed", "instance.stop_asked", "instance.dealt_with", "instance.lost",
     "instance.crashed", "instance.stopping", "instance.stopped", "instance.failed", "instance.starting",
     "instance.reported", "instance.restart_asked"}
)  # fmt: skip


def shown() -> tuple[bytes, str]:
    """The fields of `Routes` that this file owns, as JSON without braces, and the strong ETag of what they show."""
    global _kept
    newest = Event.objects.order_by("-key").values_list("key", flat=True).first() or 0
    known = _kept
    if known is not None and known[0] <= newest and not _touched(known[0], newest):
        return known[1], known[2]
    body = b'"hosts":' + orjson.dumps(_read()) + b',"leaving":' + orjson.dumps(draining.leaving())
    digest = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    with _lock:
        _kept = (newest, body, digest)
    return body, digest


def forget() -> None:
    """Between tests."""
    global _kept
    with _lock:
        _kept = None


def _touched(after: int, newest: int) -> bool:
    if after == newest:
        return False
    since = Event.objects.filter(key__gt=after, key__lte=newest, app_id__isnull=False)
    return since.filter(~Q(kind__startswith="instance.") | Q(kind__in=_INSTANCE_KINDS)).exists()


def _read() -> list[dict[str, Any]]:
    """Five queries, whatever the number of apps."""
    apps = App.objects.exclude(desired_state=DesiredState.DELETED).order_by("id")
    rows = list(apps.values_list("id", "hostname", "desired_state", "maintenance", "traffic"))
    splits = _splits()
    targets = _targets(splits)
    names: dict[int, list[str]] = {}
    for app_id, name in Domain.objects.filter(verified_at__isnull=False).order_by("id").values_list("app_id", "name"):
        names.setdefault(app_id, []).append(name)
    found = []
    for app_id, hostname, state, maintenance, traffic in rows:
        behind = targets.get(app_id, []) if state == DesiredState.RUNNING else []
        for host in (f"{hostname}.{settings.CONFIG.domain}", *names.get(app_id, ())):
            route = {"host": host, "app_id": app_id, "maintenance": maintenance, "targets": behind, **traffic}
            if app_id in splits and splits[app_id].canary_percent:
                route["canary_percent"] = splits[app_id].canary_percent
            found.append(route)
    return found


def _splits() -> dict[int, Split]:
    """Of the apps whose releases are told apart; only an app's newest deployment does."""
    rows = Deployment.objects.filter(new_percent__isnull=False).order_by("id")
    return {
        app_id: Split(release_id, floor, percent or 0)
        for app_id, release_id, floor, percent in rows.values_list("app_id", "release_id", "floor", "new_percent")
        if release_id is not None
    }


def _targets(splits: Mapping[int, Split]) -> dict[int, list[dict[str, Any]]]:
    # One that is to be restarted in place takes no new requests either.
    rows = Instance.objects.filter(
        process_type=WEB,
        status=InstanceStatus.RUNNING,
        health="healthy",
        desired="run",
        generation=F("observed_generation"),
    ).order_by("id")
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows.values_list(*_COLUMNS):
        _add(found, row, splits)
    served = frozenset(found)
    for row in _last_resort().values_list(*_COLUMNS):
        if row[0] not in served:
            _add(found, row, splits)
    return found


def _last_resort() -> QuerySet[Instance]:
    """Healthy when their node fell silent, of what the app's newest deployment found or made. A node that is heard
    again ends them, and their ports may be another's: hence only while it is lost."""
    newest = Deployment.objects.filter(app=OuterRef("app")).order_by("-id").values("created_at")[:1]
    return Instance.objects.filter(
        process_type=WEB, status=InstanceStatus.LOST, on_node=True, node__status=NodeStatus.LOST,
        healthy_at__isnull=False, finished_at__gte=Subquery(newest),
    ).order_by("id")  # fmt: skip


def _add(
    found: dict[int, list[dict[str, Any]]], row: tuple[int, int, str, int, int | None], splits: Mapping[int, Split]
) -> None:
    app_id, instance_id, address, release_id, deployment_id = row
    host, _, port = address.rpartition(":")
    pool = splits[app_id].pool_of(release_id, deployment_id) if app_id in splits else "stable"
    if pool is None or not host or not port.isdigit():
        return
    target = {"instance_id": instance_id, "address": host.strip("[]"), "port": int(port)}
    if pool != "stable":
        target["pool"] = pool
    found.setdefault(app_id, []).append(target)

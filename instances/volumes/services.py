"""The verbs of volumes: create, delete, and what agents say of them. Each runs inside the gate on locked rows.

An app's volumes all lie on one node (`App.volume_node`, which placement obeys), and are attached or removed only while
nothing of the app runs: so no instance ever stands beside its data.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.db.models import F

from agent.protocol import VolumeSeen
from apps import services as app_services
from apps.models import App, DesiredState
from consensus.gate import Transaction
from instances import models, observe
from instances.placement import Choice, Pool, need_of
from instances.states import ON_NODE
from instances.volumes import paths, representation
from instances.volumes.models import Volume
from instances.volumes.snapshots import holding
from instances.volumes.states import API, VOLUME, VolumeStatus
from omni.kernel.errors import Conflict, FieldError, InvalidInput, NotFound
from omni.kernel.transitions import move

MOST = 8  # of one app


def of_app(app: App) -> list[Volume]:
    return list(Volume.objects.filter(app=app, live=True).order_by("name"))


def find(app: App, name: str) -> Volume:
    """Raises NotFound."""
    found = Volume.objects.filter(app=app, live=True, name=name).first()
    if found is None:
        raise NotFound("There is no such volume.", next=f"GET /app/{app.pk}/volumes")
    return found


def create(tx: Transaction, app: App, name: str, path: str, node: str | None) -> tuple[Volume, str]:
    """An empty volume, and why it is where it is. Raises Conflict, InvalidInput, NotFound.

    `node` None: where the app's other volumes are, else where its next instance would be placed.
    """
    _refuse_running(app)
    known = of_app(app)
    _check_new(app, known, name, path)
    chosen, why = _node_for(app, node)
    app_services.set_volume_node(tx, app, chosen)
    row = Volume(
        key=secrets.token_hex(12), app=app, app_number=app.pk, org_number=app.org_id, name=name, path=path,
        node_name=chosen, created_by=tx.actor.label, created_at=tx.at,
    )  # fmt: skip
    row.save(force_insert=True)
    tx.record("volume.created", "volume", row.pk, org_id=app.org_id, app_id=app.pk,
              change={"name": name, "path": path, "node": chosen})  # fmt: skip
    return row, why


def delete(tx: Transaction, app: App, row: Volume) -> None:
    """For good. Raises Conflict while anything of the app runs, or a job is under way on it."""
    _refuse_running(app)
    busy = holding.busy(app.pk)
    if busy is not None:
        raise Conflict(f"The volume is needed: {busy}.", code="volume_busy", next=f"GET /app/{app.pk}/snapshots")
    _remove(tx, app, row)
    if not Volume.objects.filter(app=app, live=True).exists():
        app_services.set_volume_node(tx, app, "")


def delete_all(tx: Transaction, app: App) -> None:
    """With their app; the agent removes the bytes when nothing of it runs any more."""
    for row in of_app(app):
        _remove(tx, app, row)


def confirm(
    rows: Sequence[Volume], wanted: str, given: str | None, what: str, again: str, snapshots: int = 0
) -> None:  # fmt: skip
    """Data goes only for somebody who has said which, by its name. `snapshots`: how many of them go, too.

    Raises Conflict `confirmation_needed`.
    """
    if (rows or snapshots) and given != wanted:
        lost = [f"the data of {representation.in_words(list(rows))}"] if rows else []
        lost += [f"{snapshots} snapshots"] if snapshots else []
        raise Conflict(
            f"{what} destroys {' and '.join(lost)} for good; nothing was done.",
            code="confirmation_needed", next=f"{again}?confirm={wanted} (with dry_run=true it only shows what is lost)",
        )  # fmt: skip


def mounts(app_ids: Iterable[int], node: str) -> dict[int, list[dict[str, str]]]:
    """What the instances of these apps find on that node: app → [{"key", "name", "path"}]. One query."""
    found: dict[int, list[dict[str, str]]] = {}
    rows = Volume.objects.filter(app_id__in=list(app_ids), live=True, node_name=node).order_by("name")
    for app_id, key, name, path in rows.values_list("app_id", "key", "name", "path"):
        found.setdefault(int(app_id or 0), []).append({"key": key, "name": name, "path": path})
    return found


def of_node(node: str) -> list[dict[str, Any]]:
    """Every volume of which the node may have bytes, as `agent.protocol.VolumeOrder` says it; none is to go before the
    last instance of its app has ended there."""
    rows = list(
        Volume.objects.filter(node_name=node, on_node=True).order_by("id").values_list("key", "status", "app_id")
    )
    doomed = [app_id for _, status, app_id in rows if status == VolumeStatus.REMOVED and app_id is not None]
    instances = models.Instance.objects.filter(node__name=node, app_id__in=doomed, status__in=ON_NODE)
    busy = set(instances.values_list("app_id", flat=True)) if doomed else set()
    return [{"key": key, "keep": status == VolumeStatus.READY or app_id in busy} for key, status, app_id in rows]


def reported(tx: Transaction, node: str, seen: Sequence[VolumeSeen]) -> None:
    """What a node's agent has measured and removed; another node's volumes are none of its business."""
    by_key = {entry.key: entry for entry in seen}
    rows = Volume.objects.select_for_update().filter(key__in=by_key, node_name=node, on_node=True).order_by("id")
    for row in rows:
        entry = by_key[row.key]
        if entry.removed and row.status == VolumeStatus.REMOVED:
            _gone(tx, row)
        elif not entry.removed and entry.size_bytes is not None and entry.size_bytes != row.size_bytes:
            Volume.objects.filter(pk=row.pk).update(
                size_bytes=entry.size_bytes, measured_at=tx.at, revision=F("revision") + 1
            )
            _record(tx, row, "volume.measured", {"size_bytes": [row.size_bytes, entry.size_bytes]})


def _gone(tx: Transaction, row: Volume) -> None:
    _record(tx, row, "volume.cleared", {"name": row.name, "node": row.node_name})
    if row.app_id is None:
        row.delete()
    else:
        Volume.objects.filter(pk=row.pk).update(on_node=False, revision=F("revision") + 1)


def _remove(tx: Transaction, app: App, row: Volume) -> None:
    move(Volume, row.pk, table=VOLUME, to=VolumeStatus.REMOVED, owner=API, live=None, removed_at=tx.at)
    _record(tx, row, "volume.removed", {"name": row.name, "node": row.node_name, "size_bytes": row.size_bytes})


def _record(tx: Transaction, row: Volume, kind: str, change: dict[str, Any]) -> None:
    tx.record(kind, "volume", row.pk, org_id=row.org_number, app_id=row.app_number, change=change)


def _refuse_running(app: App) -> None:
    if app.desired_state == DesiredState.DELETED:
        raise Conflict("The app is being deleted.", code="app_deleting")
    if models.Instance.objects.filter(app=app, status__in=ON_NODE).exists():
        raise Conflict(
            "Volumes are attached and removed only while nothing of the app runs.", code="app_running",
            next=f"POST /app/{app.pk}/stop, and POST /app/{app.pk}/start afterwards",
        )  # fmt: skip


def _check_new(app: App, known: list[Volume], name: str, path: str) -> None:
    if any(row.name == name for row in known):
        raise Conflict(f"The app has a volume {name} already.", code="volume_exists",
                       next=f"GET /app/{app.pk}/volumes/{name}")  # fmt: skip
    if len(known) >= MOST:
        raise Conflict(f"The app has {MOST} volumes, which is the most.", code="too_many_volumes")
    wrong = paths.problem(path, [row.path for row in known])
    if wrong is not None:
        raise InvalidInput(errors=[FieldError("/path", "invalid", wrong)])


def _node_for(app: App, wanted: str | None) -> tuple[str, str]:
    """The node of a new volume, and why. Raises Conflict, InvalidInput."""
    if app.volume_node:
        if wanted not in (None, app.volume_node):
            said = f"The app's volumes are on {app.volume_node}; all of an app's volumes lie on one node."
            raise InvalidInput(errors=[FieldError("/node", "other_node", said)])
        return app.volume_node, f"the app's other volumes are on {app.volume_node}"
    if wanted is not None and not models.Node.objects.filter(name=wanted).exists():
        raise InvalidInput(errors=[FieldError("/node", "no_such_node", f"There is no node {wanted}.")])
    choice = place(app, wanted or "")
    if choice.node is None:
        raise Conflict(f"No node can take it: {choice.reason}", code="no_node_fits", next="GET /nodes")
    return choice.node.name, choice.reason


def place(app: App, wanted: str) -> Choice:
    """Where an instance of the app would go now."""
    overcommit = settings.CONFIG.limits.cpu_overcommit
    need = need_of(app.placement, app.memory_mb, app.cpu, app.runtime, overcommit, wanted)
    return Pool(observe.node_views()).choose(need, {})

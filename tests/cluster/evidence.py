"""What the platform itself holds when all is over: the fence, the events, the apps, the kept answers, the instances.

Owns the shape of it and how it is read from the database, past the product's own code. Judges nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ORDINALS = 4096


@dataclass(frozen=True, slots=True)
class Event:
    index: int
    ordinal: int
    epoch: int
    claim: str
    member: str
    rid: str
    kind: str
    object_id: int
    app_id: int | None
    change: dict[str, Any] = field(default_factory=dict)
    actor: str = ""

    @property
    def is_a_consequence(self) -> bool:
        """Done later by the platform, a node or a worker: it carries the id of the request that it follows from."""
        return self.actor.startswith(("system:", "agent:", "worker:"))


@dataclass(frozen=True, slots=True)
class AppRow:
    id: int
    name: str
    description: str
    instances: int
    revision: int
    desired_state: str


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """`live`: the row says that something may run."""

    id: int
    app_id: int
    slot: int
    release_id: int
    node: str
    status: str
    live: bool


@dataclass(slots=True)
class Evidence:
    """`replies`: write index of each kept answer by its scope. `processes`: pids by instance id."""

    epoch: int = 0
    write_index: int = 0
    events: list[Event] = field(default_factory=list)
    apps: dict[str, AppRow] = field(default_factory=dict)
    replies: dict[str, int] = field(default_factory=dict)
    instances: list[InstanceRow] = field(default_factory=list)
    processes: dict[int, list[int]] = field(default_factory=dict)


Sql = Callable[[str], list[list[str]]]  # runs statements in one session, answers all their rows as text
_LIVE = ("placed", "starting", "running", "crashed", "stopping")
_MARK = "--of--"
# Text columns travel as hexadecimal: a client's output has no other quoting.
_QUERIES = {
    "fence": "SELECT epoch, write_index FROM consensus_fence WHERE id = 1",
    "events": "SELECT `key`, epoch, HEX(claim), HEX(member), HEX(request_id), kind, object_id, IFNULL(app_id, 0), "
    "HEX(`change`), HEX(actor) FROM kernel_event ORDER BY `key`",
    "apps": "SELECT id, HEX(name), HEX(description), instances, revision, desired_state FROM apps_app",
    "replies": "SELECT scope, write_index FROM consensus_storedreply",
    "instances": "SELECT i.id, i.app_id, i.slot, i.release_id, IFNULL(HEX(n.name), ''), i.status "
    "FROM instances_instance i LEFT JOIN instances_node n ON n.id = i.node_id",
}


def read(sql: Sql) -> Evidence:
    """Everything but the processes, as it was at one moment."""
    parts = [f"SELECT '{_MARK}', '{name}'; {query}" for name, query in _QUERIES.items()]
    begin = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT"
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for row in sql("; ".join([begin, *parts, "COMMIT"])):
        if row[0] == _MARK:
            rows = found[row[1]] = []
        else:
            rows.append(row)
    (epoch, write_index), *_ = found["fence"] or [["0", "0"]]
    return Evidence(
        epoch=int(epoch),
        write_index=int(write_index),
        events=[_event(row) for row in found["events"]],
        apps={app.name: app for app in map(_app, found["apps"])},
        replies={scope: int(index) for scope, index in found["replies"]},
        instances=[_instance(row) for row in found["instances"]],
    )


def _text(hexadecimal: str) -> str:
    return bytes.fromhex(hexadecimal).decode()


def _event(row: list[str]) -> Event:
    key, epoch, claim, member, rid, kind, object_id, app_id, change, actor = row
    return Event(
        index=int(key) // ORDINALS,
        ordinal=int(key) % ORDINALS,
        epoch=int(epoch),
        claim=_text(claim),
        member=_text(member),
        rid=_text(rid),
        kind=kind,
        object_id=int(object_id),
        app_id=int(app_id) or None,
        change=json.loads(_text(change)),
        actor=_text(actor),
    )


def _app(row: list[str]) -> AppRow:
    pk, name, description, instances, revision, desired = row
    return AppRow(int(pk), _text(name), _text(description), int(instances), int(revision), desired)


def _instance(row: list[str]) -> InstanceRow:
    pk, app_id, slot, release_id, node, status = row
    return InstanceRow(int(pk), int(app_id), int(slot), int(release_id), _text(node), status, status in _LIVE)

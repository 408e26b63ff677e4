"""The replicated state: what must be readable with the database down, and the one function that changes it.

Owns the commands and their meaning. `apply` is pure and total: the same (state, command, index) gives the same answer
on every member for ever, and no command, however broken, raises (one that did would be repeated on every tick and wedge
the member). It never changes the state it was given. Time is stamped by whoever proposes a command, never read here.

A command is `{"op": name, "v": 1, …}`. An operation's meaning never changes once it was released: a new meaning is a
new `v`, and the old one stays, for journals hold old commands. Every command may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

State = dict[str, Any]
Reply = dict[str, Any]
Command = dict[str, Any]

TEXT_MAX = 1024
ENTRIES_MAX = 10_000
MEMBERS_MAX = 100
_INTEGER_MAX = 2**63 - 1


class _Refused(Exception):
    """The machine's *no*; becomes a reply."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def empty() -> State:
    """The state before the first command."""
    return {"cluster": {}, "members": {}, "leader": {}, "drains": {}, "services": {}}


def apply(state: State, command: object, index: int) -> tuple[State, Reply]:
    """The state after `command`, and what its proposer is told: `{"ok": True, "index": …}` or `{"ok": False, …}`.

    A refusal leaves the state as it was. An unknown operation (of a newer version) is a refusal too.
    """
    try:
        if not isinstance(command, dict):
            raise _Refused("bad_command", "a command is an object")
        key = (command.get("op"), command.get("v", 1))
        operation = _OPERATIONS.get(key) if _hashable(key) else None
        if operation is None:
            raise _Refused("unknown_command", "this version knows no such command")
        changed, more = operation(state, command)
    except _Refused as refusal:
        return state, {"ok": False, "code": refusal.code, "message": str(refusal), "index": index}
    except Exception as error:  # a mistake of ours must not wedge every member at once
        return state, {"ok": False, "code": "bad_command", "message": type(error).__name__, "index": index}
    return {**state, **changed}, {"ok": True, "index": index, **more}


def member_record(id: str, address: str) -> dict[str, Any]:
    return {"address": address, "http": http_of(id), "version": "", "last_seen_at": None, "joined_at": None}


def http_of(id: str) -> str:
    """`host:port` of the member's web server, from its id `<address>-<port>`."""
    host, _, port = id.rpartition("-")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def joined(state: State, id: str, address: str) -> State:
    """After the membership entry that adds `id`. Not a command: Raft itself decides who is a member."""
    known = state["members"].get(id) or member_record(id, address)
    return {**state, "members": {**state["members"], id: {**known, "address": address}}}


def left(state: State, id: str) -> State:
    """After the membership entry that removes `id`; what was said about it goes too."""
    members = {name: record for name, record in state["members"].items() if name != id}
    drains = {name: record for name, record in state["drains"].items() if name != id}
    return {**state, "members": members, "drains": drains}


def _init(state: State, command: Command) -> tuple[State, Reply]:
    """Founds the cluster with its first `members`, `{id: Raft address}`; the same id again is a repetition."""
    id = _text(command, "id")
    known = state["cluster"].get("id")
    if known is not None and known != id:
        raise _Refused("another_cluster", f"this cluster is {known}")
    if known == id:
        return {}, {"cluster": state["cluster"]}
    cluster = {"id": id, "created_at": _text(command, "created_at")}
    members = {name: member_record(name, address) for name, address in sorted(_founders(command).items())}
    return {"cluster": cluster, "members": members}, {"cluster": cluster}


def _seen(state: State, command: Command) -> tuple[State, Reply]:
    """What the leader noticed about a member: its version when it changed, the time when it went away or came back."""
    id = _text(command, "id")
    record = state["members"].get(id)
    if record is None:
        raise _Refused("no_member", f"{id} is no member")
    changed = dict(record)
    for name in ("version", "last_seen_at", "joined_at"):
        if command.get(name) is not None:
            changed[name] = _text(command, name)
    return {"members": {**state["members"], id: changed}}, {}


def _claimed(state: State, command: Command) -> tuple[State, Reply]:
    """A leader claimed the fence of the database under `epoch`. An older epoch never takes a newer one's place."""
    epoch = _integer(command, "epoch")
    claim = {
        "member": _text(command, "member"),
        "epoch": epoch,
        "claim_id": _text(command, "claim_id"),
        "since": _text(command, "since"),
    }
    known = state["leader"].get("epoch", -1)
    if epoch < known or (epoch == known and state["leader"]["claim_id"] != claim["claim_id"]):
        raise _Refused("old_epoch", f"epoch {known} was claimed already")
    if epoch == known:
        return {}, {}
    return {"leader": claim}, {}


def _restored(state: State, command: Command) -> tuple[State, Reply]:
    """A database was restored or replaced: its epoch may be lower than the one that was claimed here before."""
    return {"leader": {}}, {}


def _drain(state: State, command: Command) -> tuple[State, Reply]:
    """The flag of a node: `on` true or false."""
    node = _text(command, "node")
    if not isinstance(command.get("on"), bool):
        raise _Refused("bad_command", "on: true or false")
    if not command["on"]:
        return {"drains": {name: record for name, record in state["drains"].items() if name != node}}, {}
    if node in state["drains"]:
        return {}, {}
    record = {"since": _text(command, "since"), "reason": _text(command, "reason", default="")}
    return {"drains": _grown(state["drains"], node, record)}, {}


def _service(state: State, command: Command) -> tuple[State, Reply]:
    """The health of one service as its checks see it; `state` null forgets the service."""
    name = _text(command, "name")
    if command.get("state") is None:
        return {"services": {other: record for other, record in state["services"].items() if other != name}}, {}
    record = {
        "state": _text(command, "state"),
        "since": _text(command, "since"),
        "detail": _text(command, "detail", default=""),
    }
    return {"services": _grown(state["services"], name, record)}, {}


_OPERATIONS: dict[tuple[object, object], Callable[[State, Command], tuple[State, Reply]]] = {
    ("cluster.init", 1): _init,
    ("member.seen", 1): _seen,
    ("leader.claimed", 1): _claimed,
    ("leader.restored", 1): _restored,
    ("drain.set", 1): _drain,
    ("service.set", 1): _service,
}


def _hashable(key: tuple[object, object]) -> bool:
    """True is 1 for a dictionary; versions are integers and nothing else."""
    return isinstance(key[0], str) and type(key[1]) is int


def _text(command: Command, name: str, *, default: str | None = None) -> str:
    value = command.get(name, default)
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise _Refused("bad_command", f"{name}: a text of at most {TEXT_MAX} characters")
    return value


def _founders(command: Command) -> dict[str, str]:
    members = command.get("members")
    if not isinstance(members, dict) or not 1 <= len(members) <= MEMBERS_MAX:
        raise _Refused("bad_command", f"members: an object of 1 to {MEMBERS_MAX} addresses by id")
    return {_text({"id": id}, "id"): _text(members, id) for id in members}


def _integer(command: Command, name: str) -> int:
    value = command.get(name)
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise _Refused("bad_command", f"{name}: a whole number from 0")
    return value


def _grown(table: dict[str, Any], name: str, record: dict[str, Any]) -> dict[str, Any]:
    if name not in table and len(table) >= ENTRIES_MAX:
        raise _Refused("full", f"there are {ENTRIES_MAX} entries already")
    return {**table, name: record}

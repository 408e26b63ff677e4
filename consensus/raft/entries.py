"""What one entry of the log says, and what it does: commands, membership changes, and the empty entry of a new leader.

Owns the first byte of an entry (PySyncObj's) and the JSON behind it. `apply` is the one replicated entry point, total
like the machine behind it: an entry that cannot be read changes nothing and is answered, on every member alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, cast

from consensus.raft import machine
from consensus.raft.machine import Reply, State

_REGULAR, _MEMBERSHIP = b"\x00", b"\x02"
NO_OP = b"\x01"


@dataclass(frozen=True, slots=True)
class Change:
    """`id` becomes a voter, or is one no more. The address is kept in both, so that a change can be taken back."""

    verb: Literal["add", "rem"]
    id: str
    address: str

    def to_voters(self, voters: dict[str, str]) -> dict[str, str]:
        if self.verb == "add":
            return {**voters, self.id: self.address}
        return {id: address for id, address in voters.items() if id != self.id}


def make_command(command: machine.Command) -> bytes:
    return _REGULAR + json.dumps(command).encode()


def make_change(change: Change) -> bytes:
    return _MEMBERSHIP + json.dumps([change.verb, change.id, change.address]).encode()


def change_in(entry: bytes) -> Change | None:
    """The membership change that `entry` makes; None for every other one."""
    if entry[:1] != _MEMBERSHIP:
        return None
    try:
        verb, id, address = json.loads(entry[1:])
    except (ValueError, TypeError, RecursionError):
        return None
    if verb not in ("add", "rem") or not isinstance(id, str) or not isinstance(address, str):
        return None
    return Change(cast(Literal["add", "rem"], verb), id, address)


def apply(state: State, entry: bytes, index: int) -> tuple[State, Reply]:
    """The state after the entry with this index, and the answer to whoever proposed it."""
    change = change_in(entry)
    if change is not None:
        after = (
            machine.joined(state, change.id, change.address) if change.verb == "add" else machine.left(state, change.id)
        )
        return after, {"ok": True, "index": index}
    if entry[:1] != _REGULAR:
        return state, {"ok": entry == NO_OP, "index": index}
    try:
        command = json.loads(entry[1:])
    except (ValueError, RecursionError):
        return state, {"ok": False, "code": "bad_command", "message": "no JSON", "index": index}
    return machine.apply(state, command, index)


def voters(state: State, founders: dict[str, str]) -> dict[str, str]:
    """Who counts after the entries that made `state`: the configuration's members until the cluster was founded."""
    if not state["cluster"]:
        return dict(founders)
    return {id: record["address"] for id, record in state["members"].items()}

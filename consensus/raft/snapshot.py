"""The snapshot: everything that the dropped beginning of the log had made.

Owns the file's form: one line of JSON behind a checksum, so that reading one, also one that came from another member,
runs nothing. Written whole or not at all.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consensus.raft import journal, machine
from consensus.raft.journal import Damaged, Entry

_MAGIC = b"omni raft snapshot 1 "
RECEIVED_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after `last`; `previous` is the entry before it."""

    state: dict[str, Any]
    last: Entry
    previous: Entry


def write(path: Path, snapshot: Snapshot) -> None:
    """Into `path` itself, durably; whoever calls renames it afterwards."""
    with path.open("wb") as file:
        file.write(encode(snapshot))
        file.flush()
        journal.datasync(file.fileno())


def read(path: Path) -> Snapshot:
    """Raises Damaged, FileNotFoundError."""
    return decode(path.read_bytes(), str(path))


def encode(snapshot: Snapshot) -> bytes:
    body = json.dumps(
        {
            "state": snapshot.state,
            "last": _entry_to_json(snapshot.last),
            "previous": _entry_to_json(snapshot.previous),
        }
    ).encode()
    return _MAGIC + f"{zlib.crc32(body):08x}\n".encode() + body


def decode(content: bytes, name: str) -> Snapshot:
    """Raises Damaged for anything that `encode` did not make."""
    head, _, body = content.partition(b"\n")
    if head != _MAGIC + f"{zlib.crc32(body):08x}".encode():
        raise Damaged(f"{name}: is no whole snapshot of this version")
    try:
        data = json.loads(body)
        state = {**machine.empty(), **data["state"]}  # a later version may have added a part
        return Snapshot(state, _entry_from_json(data["last"]), _entry_from_json(data["previous"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{name}: lacks a part of a snapshot") from error


class Incoming:
    """A snapshot on its way from the leader, in chunks `(data, first, last)`; the last one is empty."""

    def __init__(self) -> None:
        self._parts: list[bytes] | None = None

    def add(self, chunk: tuple[bytes, bool, bool]) -> Snapshot | None:
        """The whole once the last chunk came. Raises Damaged, and starts anew with the next first chunk."""
        data, first, last = chunk
        if first:
            self._parts = []
        if self._parts is None:
            return None
        self._parts.append(data)
        if sum(len(part) for part in self._parts) > RECEIVED_MAX:
            self._parts = None
            raise Damaged(f"the leader's snapshot is longer than {RECEIVED_MAX} bytes")
        if not last:
            return None
        content, self._parts = b"".join(self._parts), None
        return decode(content, "the leader's snapshot")


def _entry_to_json(entry: Entry) -> list[Any]:
    return [base64.b64encode(entry[0]).decode(), entry[1], entry[2]]


def _entry_from_json(data: list[Any]) -> Entry:
    command, index, term = data
    return base64.b64decode(command), int(index), int(term)

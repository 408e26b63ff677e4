"""The snapshot: everything that the dropped beginning of the log had made.

Owns the file's form: one line of JSON behind a checksum, so that reading one, also one that came from another member,
runs nothing. Written whole or not at all.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consensus.raft.journal import Damaged, Entry

_MAGIC = b"omni raft snapshot 1 "


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after `last`; `previous` is the entry before it; `members` are `{id: Raft address}` at that point."""

    state: dict[str, Any]
    last: Entry
    previous: Entry
    members: dict[str, str]


def write(path: Path, snapshot: Snapshot) -> None:
    """Into `path` itself, durably; whoever calls renames it afterwards."""
    with path.open("wb") as file:
        file.write(encode(snapshot))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Snapshot:
    """Raises Damaged, FileNotFoundError."""
    return decode(path.read_bytes(), str(path))


def encode(snapshot: Snapshot) -> bytes:
    body = json.dumps(
        {
            "state": snapshot.state,
            "last": _entry_to_json(snapshot.last),
            "previous": _entry_to_json(snapshot.previous),
            "members": snapshot.members,
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
        return Snapshot(
            dict(data["state"]),
            _entry_from_json(data["last"]),
            _entry_from_json(data["previous"]),
            {str(id): str(address) for id, address in data["members"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"{name}: lacks a part of a snapshot") from error


def _entry_to_json(entry: Entry) -> list[Any]:
    return [base64.b64encode(entry[0]).decode(), entry[1], entry[2]]


def _entry_from_json(data: list[Any]) -> Entry:
    command, index, term = data
    return base64.b64decode(command), int(index), int(term)

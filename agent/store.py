"""What the agent keeps on disk: one directory per instance, and which list of the control plane it last applied.

Owns paths and atomic writes. The directory of instances is shared by the agents of one host; each touches only those
whose record carries its own node. Losing nothing at power loss is not promised (the processes are gone then, too);
never leaving half a file is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from agent import plain
from agent.record import Record

log = logging.getLogger(__name__)

RECORD = "state.json"
SWEPT = "swept"  # left by `agent.sweep`: the instance was ended with the platform
TREES = "trees"
VOLUMES = "volumes"
_KEY = re.compile(r"[0-9a-f]{16,64}")


@dataclass(frozen=True, slots=True)
class Applied:
    """The newest list that was taken over."""

    cluster_id: str = ""
    epoch: int = 0
    index: int = 0


class Store:
    def __init__(self, node: str, instances_dir: Path, state_dir: Path) -> None:
        self.node = node
        self.instances_dir = instances_dir
        self.state_dir = state_dir
        for directory in (instances_dir, instances_dir / TREES, state_dir):
            directory.mkdir(parents=True, exist_ok=True)

    def directory(self, instance_id: int) -> Path:
        return self.instances_dir / str(instance_id)

    def is_volume(self, key: str) -> bool:
        """Whether that can be a volume's key: nothing else becomes part of a path."""
        return _KEY.fullmatch(key) is not None

    def volume(self, key: str) -> Path:
        """Where that volume of this node lies. Raises ValueError for what is no key."""
        if not self.is_volume(key):
            raise ValueError(f"{key!r} is no key of a volume")
        return self.instances_dir / VOLUMES / key

    def beside_volume(self, key: str, what: str) -> Path:
        """A place of its own next to that volume, on the same disk."""
        return beside(self.volume(key), what)

    def save(self, record: Record) -> None:
        directory = self.directory(record.id)
        directory.mkdir(mode=0o711, exist_ok=True)  # without a sandbox its user must get through to its home
        write_atomically(directory / RECORD, record)

    def load(self) -> list[Record]:
        """Every record of this node. One that cannot be read is reported and left for people to look at."""
        return [record for record in self._every() if record.node == self.node]

    def _every(self) -> list[Record]:
        records = []
        for path in sorted(self.instances_dir.glob(f"[0-9]*/{RECORD}")):
            try:
                records.append(read_record(path))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                log.error("cannot read %s: %s", path, error)
        return records

    def packages_in_use(self) -> set[str] | None:
        """Digests that any agent's record on this host refers to; None when one of them could not be read."""
        found: set[str] = set()
        for path in self.instances_dir.glob(f"[0-9]*/{RECORD}"):
            try:
                found.add(str(json.loads(path.read_bytes())["assignment"]["release"]["package"]))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError):
                return None
        return found

    def delete(self, instance_id: int) -> None:
        """Record last: whatever interrupts this, the instance is still known and deleted next time."""
        directory = self.directory(instance_id)
        with contextlib.suppress(FileNotFoundError):
            for entry in list(directory.iterdir()):
                if entry.name != RECORD:
                    _remove(entry)
            (directory / RECORD).unlink(missing_ok=True)
            directory.rmdir()

    def incarnation(self) -> int:
        """Names this agent process: greater than every earlier one of this node, even when the clock was set back."""
        path = self.state_dir / "incarnation.json"
        try:
            last = int(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            last = 0
        now = max(time.time_ns(), last + 1)
        write_atomically(path, now)
        return now

    def applied(self) -> Applied:
        try:
            return plain.from_json(Applied, json.loads((self.state_dir / "applied.json").read_bytes()))
        except (OSError, ValueError):
            return Applied()

    def save_applied(self, applied: Applied) -> None:
        write_atomically(self.state_dir / "applied.json", applied)


def beside(volume: Path, what: str) -> Path:
    return volume.with_name(f".{volume.name}.{what}")


def read_record(path: Path) -> Record:
    return plain.from_json(Record, json.loads(path.read_bytes()))


def write_atomically(path: Path, data: Any) -> None:
    """`data` as JSON: plain types, or a message (`agent.plain`). Cheap, for an instance is written down several times
    on its way up, and they may start by the dozen."""
    temporary = f"{path.parent}/.{path.name}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(orjson.dumps(data))
    os.replace(temporary, path)  # noqa: PTH105 (pathlib's makes two more paths)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)

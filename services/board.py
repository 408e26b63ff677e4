"""What every vantage point last said, on the leader's host: one file per node, written by its web workers, read by its
daemon.

Owns the files under `node-<port>/checks` and their order: a full report begins a file anew, changes are appended with
a number; where one is missing, what was known of the node counts for nothing until a full report came. Works with the
database down. A new leader begins without any file and asks for full reports.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

from agent.checks.messages import Seen, Verdicts
from services.decision import Reading

SILENT_AFTER_S = 12.0  # an engine that lives says so every 4 s
_NAME = re.compile(r"[A-Za-z0-9:._-]{1,64}", re.ASCII)
_WANT = ".want"


def directory() -> Path:
    """Of this member; each member has its own."""
    config = settings.CONFIG
    return Path(config.node_dir(config.me)) / "checks"


def receive(report: Verdicts, folder: Path) -> bool:
    """Keep a node's report (web worker). True: everything is wanted, this one was not understood without it."""
    if not _NAME.fullmatch(report.node) or report.node.startswith("."):
        raise ValueError(f"{report.node!r} is no name of a node")
    file, want = folder / report.node, folder / (report.node + _WANT)
    line = orjson.dumps(
        {
            "i": report.incarnation,
            "n": report.seq,
            "f": report.full,
            "t": time.monotonic_ns(),
            "s": [[s.id, s.definition, s.verdict, s.at_us, s.detail[:300], s.latency_ms] for s in report.seen],
        }
    )
    if report.full:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = folder / f".{report.node}.{os.getpid()}"
        fresh.write_bytes(line + b"\n")
        fresh.replace(file)
        want.unlink(missing_ok=True)
        return False
    if want.exists():
        return True
    try:
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        os.write(fd, line + b"\n")
    finally:
        os.close(fd)
    return False


@dataclass(slots=True)
class _Node:
    inode: int = 0
    offset: int = 0
    incarnation: int = 0
    seq: int = 0
    heard_ns: int = 0
    seen: dict[int, Seen] = field(default_factory=dict)


class Board:
    """The daemon's side. Keeps no file open and forgets a node whose file is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._nodes: dict[str, _Node] = {}

    def read(self) -> None:
        """Take in what came since the last time."""
        found = set()
        try:
            entries = [e for e in os.scandir(self._folder) if not e.name.startswith(".") and not e.name.endswith(_WANT)]
        except FileNotFoundError:
            entries = []
        for entry in entries:
            found.add(entry.name)
            self._read(entry.name, Path(entry.path))
        for name in set(self._nodes) - found:
            del self._nodes[name]

    def readings(self, service_id: int, definition: int, nodes: Iterable[str]) -> list[Reading]:
        """What those nodes say of that version of the service; nothing of those that are silent."""
        now, told = time.monotonic_ns(), []
        for name in nodes:
            node = self._nodes.get(name)
            if node is None or not 0 <= now - node.heard_ns < SILENT_AFTER_S * 1e9:
                continue
            seen = node.seen.get(service_id)
            if seen is not None and seen.definition == definition and seen.verdict != "unknown":
                told.append(Reading(name, seen.verdict, seen.detail))
        return told

    def _read(self, name: str, path: Path) -> None:
        node = self._nodes.setdefault(name, _Node())
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != node.inode or stat.st_size < node.offset:
                    node.inode, node.offset = stat.st_ino, 0
                file.seek(node.offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        node.offset += len(whole)
        for line in whole.splitlines():
            self._take(name, node, orjson.loads(line))

    def _take(self, name: str, node: _Node, line: dict[str, Any]) -> None:
        follows = line["i"] == node.incarnation and line["n"] == node.seq + 1
        if line["f"]:
            node.seen = {}
        elif not follows:
            node.seen, node.seq = {}, 0
            (self._folder / (name + _WANT)).touch()
            return
        node.incarnation, node.seq, node.heard_ns = line["i"], line["n"], line["t"]
        for row in line["s"]:
            seen = Seen(*row)
            if seen.verdict == "unknown":
                node.seen.pop(seen.id, None)
            else:
                node.seen[seen.id] = seen

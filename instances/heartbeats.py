"""When each node was last heard of: outside the database, on the leader's host, in one small file per node.

Owns the files under `node-<port>/heartbeats`. The leader's web workers write eight bytes per heartbeat
(CLOCK_MONOTONIC in nanoseconds, which all processes of a host share), the leader's daemon reads them. Nothing here
survives a reboot, and nothing needs to: a new leader gives every node a full lease.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import time
from pathlib import Path

from django.conf import settings

_FORM = struct.Struct("<q")
_NAME = re.compile(r"[A-Za-z0-9:._-]{1,64}", re.ASCII)


class Heartbeats:
    """The heartbeat files of one member's directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()

    def beat(self, node: str) -> None:
        """`node` was heard of now. Costs one system call."""
        fd = self._open.get(node)
        if fd is None:
            fd = self._file(node)
        os.pwrite(fd, _FORM.pack(time.monotonic_ns()), 0)

    def ages(self) -> dict[str, float]:
        """Seconds since each node was last heard of on this host."""
        found: dict[str, float] = {}
        try:
            entries = list(os.scandir(self._directory))
        except FileNotFoundError:
            return found
        for entry in entries:
            raw = Path(entry.path).read_bytes()
            now = time.monotonic_ns()  # after the file: a beat in between must not look like one from the future
            if len(raw) == _FORM.size:
                (at,) = _FORM.unpack(raw)
                if at <= now:  # later than now: written before a reboot
                    found[entry.name] = (now - at) / 1e9
        return found

    def _file(self, node: str) -> int:
        if not _NAME.fullmatch(node) or node.startswith("."):
            raise ValueError(f"{node!r} is no name of a node")
        with self._lock:
            if node not in self._open:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._open[node] = os.open(self._directory / node, flags, 0o600)
            return self._open[node]


_own: dict[Path, Heartbeats] = {}


def own() -> Heartbeats:
    """Those of this member. Each member has its own, so that several on one host do not answer for each other."""
    config = settings.CONFIG
    directory = config.node_dir(config.me) / "heartbeats"
    return _own.setdefault(directory, Heartbeats(directory))

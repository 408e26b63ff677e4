"""The cluster as it is shipped: every node on this machine's loopback, one state directory, SQLite.

Owns that shape of a lab. There is no cable to cut and no database server to kill; everything else breaks as elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni.launch import proc
from omni.testing.hosts import Host
from tests.cluster.lab import Lab, Shape
from tests.cluster.nodes import LabNode
from tests.running_platform import free_ports, processes_with

_NO_QUERY = re.compile(r"SET |START |COMMIT")


class ThisMachine(Host):
    """No namespace: commands run as they are."""

    def command(self, argv: Sequence[str]) -> list[str]:
        return list(argv)


@dataclass
class SqliteFile:
    """Stands where a lab's database server stands."""

    path: Path
    addresses: list[str] = field(default_factory=lambda: ["127.0.0.1"])
    pids: list[int] = field(default_factory=list)
    url_of_lab: str = ""

    def rows(self, statements: str) -> list[list[str]]:
        """The rows of all queries, as they were at one moment."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=20, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            found: list[list[str]] = []
            for statement in statements.split("; "):
                if not _NO_QUERY.match(statement):
                    found += [[str(cell) for cell in row] for row in connection.execute(statement)]
            return found

    def heal(self) -> None:
        """Nothing can happen to it."""


class OneHostLab(Lab):
    """`with OneHostLab(Shape(members=4)) as lab: lab.start()`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.state = self.folder / "state"
        self.database: Any = SqliteFile(self.state / "omni.sqlite3")

    def __enter__(self) -> OneHostLab:
        self._closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self._prepare()
        except BaseException:
            self._take_down()
            raise
        return self

    @property
    def has_cables(self) -> bool:
        return False

    def instances(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for pid in processes_with(mounted=self.state):
            with contextlib.suppress(OSError):
                for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    name, _, value = word.partition(b"=")
                    if name == b"OMNI_INSTANCE_ID" and value.isdigit() and not proc.is_zombie(pid):
                        found.setdefault(int(value), []).append(pid)
        return found

    def heal(self) -> None:
        for node in self.nodes:
            node.disarm()
            if node.frozen:
                node.thaw()
            if not node.alive and node.plan:
                node.start()

    def left_over(self) -> list[str]:
        running = [pid for pids in self.instances().values() for pid in pids]
        return [str(pid) for pid in [*running, *(found.pid for found in proc.left_of(str(self.state)))]]

    def _prepare(self) -> None:
        ports = free_ports(self.shape.members + 1)
        instances = [{"port": port, "address": "127.0.0.1"} for port in ports[:-1]]
        config = self.folder / "config.json"
        given = {"port": ports[0], "address": "127.0.0.1", "instances": instances, "ingress": {"port": ports[-1]}}
        agent = {"port_base": 40_000 + os.getpid() % 20 * 1000, "port_count": 100}
        config.write_text(json.dumps({**given, "agent": agent, **self.shape.keys}))
        self.state.mkdir()
        for number, port in enumerate(ports[:-1]):
            host = ThisMachine(f"node{number}", "127.0.0.1", "")
            services = ("broker", *self.shape.services) if number == 0 and self.shape.services else ()
            given = {**self._environment(self.state, port)}
            given.pop("OMNI_CLUSTER_SECRET")  # the first start makes it
            node = LabNode(number, host, port, self.state, config, given, services)
            node.prepare()
            self.nodes.append(node)

    def _take_down(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(OSError, RuntimeError, subprocess.SubprocessError):
                node.stop()
        for node in self.nodes[:1]:
            with contextlib.suppress(OSError, RuntimeError, subprocess.SubprocessError):
                node.sweep()
        self._closing.close()

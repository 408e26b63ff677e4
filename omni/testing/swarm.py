"""A Docker Swarm of our own for tests and trials: engines in network namespaces, joined by one bridge.

Owns the namespaces and the engines. Swarm's ports and the bridge it makes are one to a network namespace, so that
engines beside each other, and other tests, need one each.
"""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from pathlib import Path

from omni.testing import docker_engine, hosts
from omni.testing.docker_engine import DockerEngine
from omni.testing.hosts import Hosts, NoNamespaces

_READY_S = 60.0


def missing() -> str:
    """Why no swarm can be had here; empty when one can."""
    if why := docker_engine.missing():
        return why
    try:
        hosts.refuse_where_forbidden()
    except NoNamespaces as error:
        return str(error)
    return ""


class Swarm:
    """`with Swarm("tria", 3) as swarm: swarm.engines[0].docker("node", "ls")`; the first is the manager.

    `name` has four letters: the rest says which process it is, for the tests of one file may run in several.
    """

    def __init__(self, name: str, count: int = 1, *options: str) -> None:
        number = zlib.crc32(f"{name} {os.getpid()}".encode())  # two of one process are beside each other
        self.hosts = Hosts(f"{name[:4]}{os.getpid() % 10_000}", count, f"10.{192 + number % 8}.{number // 8 % 250}")
        self._options = options  # of dockerd
        self.engines = [DockerEngine(Path(tempfile.mkdtemp(prefix="os-")), host) for host in self.hosts.hosts]

    def __enter__(self) -> Swarm:
        try:
            self.hosts.__enter__()
            for engine in self.engines:
                engine.start(*self._options)
            self.join()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self.engines:
            engine.stop()
        self.hosts.remove()

    def join(self) -> None:
        manager, *workers = zip(self.engines, self.hosts.hosts, strict=True)
        address = manager[1].address
        manager[0].docker("swarm", "init", "--advertise-addr", address, "--listen-addr", f"{address}:2377")
        if workers:
            token = manager[0].docker("swarm", "join-token", "--quiet", "worker").strip()
        for engine, host in workers:
            engine.docker("swarm", "join", "--token", token, "--advertise-addr", host.address, f"{address}:2377")
        deadline = time.monotonic() + _READY_S
        while self._ready() < len(self.engines):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not every node of the swarm is ready after {_READY_S:g} s")
            time.sleep(0.1)

    def _ready(self) -> int:
        try:
            said = self.engines[0].docker("node", "ls", "--format", "{{.Status}} {{.Availability}}")
        except RuntimeError:  # it has no leader yet
            return 0
        return said.split("\n").count("Ready Active")

    def node_of(self, engine: DockerEngine) -> str:
        """Its id in the swarm."""
        return engine.docker("info", "--format", "{{.Swarm.NodeID}}").strip()

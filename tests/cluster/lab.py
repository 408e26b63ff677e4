"""A whole cluster in network namespaces: nodes, database, cables; started, broken, healed and taken down again.

Owns what there is and where. What breaks when is `faults`' business, what clients do `workload`'s. Speaks to the
platform over HTTP and signals, and reads the database past it only to judge.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from omni.launch import proc
from omni.testing.hosts import Hosts
from tests.cluster import evidence, network
from tests.cluster.broker import LabBroker
from tests.cluster.database import LabDatabase
from tests.cluster.evidence import Evidence
from tests.cluster.nodes import PROJECT, LabNode, failpoints_of, instances_on, processes_on
from tests.running_platform import wait_for

HERE = Path(__file__).resolve().parent
_PORT = 8000
_READY_S = 150.0
_SMALL_DISK_MB = 192
_labs = itertools.count()


@dataclass(frozen=True, slots=True)
class Shape:
    """`services`: what runs beside the first node. `mutant`: a folder of `mutants/` with a planted defect."""

    members: int = 3
    services: tuple[str, ...] = ()
    mutant: str = ""
    small_disks: bool = False
    clocks: bool = False
    keys: dict[str, Any] = field(default_factory=dict)


class Lab:
    """`with Lab(Shape(members=3)) as lab: lab.start()`."""

    def __init__(self, shape: Shape, database: Callable[[Hosts], Any] | None = None) -> None:
        self.shape = shape
        self.folder = Path(tempfile.mkdtemp(prefix="ol-"))
        self.folder.chmod(0o711)  # instances run under users of their own
        self.secret = secrets.token_hex(32)
        self.nodes: list[LabNode] = []
        self.broker: LabBroker | None = None
        self._database = database or (lambda hosts: LabDatabase(hosts[self.shape.members + 1]))
        self._closing = contextlib.ExitStack()
        self._mounted: list[Path] = []

    def __enter__(self) -> Lab:
        try:
            self._closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.hosts = self._closing.enter_context(_hosts(self.shape.members + 4))
            self.database = self._database(self.hosts)
            self._closing.callback(self.database.remove)
            self.database.__enter__()
            self.database.prepare()
            if "worker" in self.shape.services:
                self.broker = LabBroker(self.hosts[self.shape.members], self.folder / "broker")
                self._closing.callback(self.broker.kill)
                self.broker.start()
            self._prepare_nodes()
        except BaseException:
            self._take_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._take_down()

    # -- life

    def start(self) -> Lab:
        """Migrate, start every node, wait until each of them is ready."""
        self.nodes[0].migrate()
        for node in self.nodes:
            node.start()
        try:
            wait_for(self.all_ready, "every node ready", _READY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.account()}") from None
        return self

    def stop(self) -> None:
        """Everything of the platform, in good order; the database stays."""
        self.heal()
        for node in self.nodes:
            node.stop()
        for node in self.nodes:
            node.sweep()

    def heal(self) -> None:
        """No cable is cut, nobody is frozen or dead, no disk full, no clock wrong."""
        for host in self.hosts.hosts:
            network.heal(host)
        self.database.heal()
        if self.broker is not None:
            self.broker.heal()
        for node in self.nodes:
            node.disarm()
            self.jump(node, 0.0)
            (node.state / "ballast").unlink(missing_ok=True)
            if node.frozen:
                node.thaw()
            if not node.alive and node.plan:
                node.start()

    def left_over(self) -> list[str]:
        """Processes that live on in the namespaces although the platform was stopped."""
        pids = [pid for pid in processes_on(self.hosts.hosts) if pid not in self._servers and not proc.is_zombie(pid)]
        return [f"{pid} {_words(pid)}" for pid in pids]

    def _take_down(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(OSError, RuntimeError, subprocess.SubprocessError):
                node.stop()
                node.sweep()
        with contextlib.suppress(OSError, AttributeError):
            proc.end([pid for pid in processes_on(self.hosts.hosts) if pid not in self._servers], grace_s=2.0)
        for place in self._mounted:
            subprocess.run(["umount", "-l", str(place)], timeout=20, check=False)
        self._closing.close()

    @property
    def _servers(self) -> set[int]:
        return {*self.database.pids, *(self.broker.pids if self.broker else [])}

    # -- making

    def _prepare_nodes(self) -> None:
        hosts = self.hosts.hosts[: self.shape.members]
        config = self.folder / "config.json"
        instances = [{"port": _PORT, "address": host.address} for host in hosts]
        mine = {"port": _PORT, "address": hosts[0].address} if len(hosts) == 1 else {}
        config.write_text(json.dumps({**mine, "instances": instances, **self.shape.keys}))
        for number, host in enumerate(hosts):
            state = self.folder / f"n{number + 1}"
            state.mkdir()
            if self.shape.small_disks:
                self._mount(state)
            services = self.shape.services if number == 0 else ()
            node = LabNode(number, host, _PORT, state, config, self._environment(state, _PORT), services)
            node.prepare()
            self.nodes.append(node)

    def _mount(self, place: Path) -> None:
        words = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_MB}m,mode=711", "omni-lab", str(place)]
        subprocess.run(words, timeout=20, check=True)
        self._mounted.append(place)

    def _environment(self, state: Path, port: int) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMNI_", "DJANGO_"))}
        given = {
            "OMNI_STATE": str(state),
            "OMNI_DATABASE_URL": self.database.url_of_lab,
            "OMNI_CLUSTER_SECRET": self.secret,
            "OMNI_ENV": "development",
            "OMNI_FAILPOINTS": str(failpoints_of(state, port)),
        }
        if self.broker is not None:
            given["OMNI_BROKER_URL"] = self.broker.url
        if run := os.environ.get("OMNI_TEST_RUN"):
            given["OMNI_TEST_RUN"] = run
        if self.shape.mutant:
            given["PYTHONPATH"] = str(HERE / "mutants" / self.shape.mutant)
            given["OMNI_TEST_MUTANTS"] = str(HERE / "mutants")
        if self.shape.clocks:
            self.clock_of(state).write_bytes(bytes(8))
            given |= {"LD_PRELOAD": str(_clock_library()), "OMNI_TEST_CLOCK": str(self.clock_of(state))}
        return {**kept, **given}

    def clock_of(self, state: Path) -> Path:
        return self.folder / f"{state.name}.clock"

    # -- looking

    @property
    def token(self) -> str:
        return (self.nodes[0].state / "admin.token").read_text().strip()

    @property
    def has_cables(self) -> bool:
        """Whether there is a network to be cut, and a database server to be killed."""
        return True

    @property
    def strict_reads(self) -> bool:
        """Whether a read sees everything that was committed before it began (several servers lag a little)."""
        return len(self.database.addresses) == 1

    @functools.cached_property
    def principal(self) -> str:
        """Whose idempotency keys the clients' are."""
        first = self.database.rows("SELECT MIN(id) FROM accounts_apitoken")[0][0]
        return f"token:{first}"

    def get(self, node: LabNode, path: str, timeout_s: float = 2.0) -> httpx.Response | None:
        headers = {"Authorization": f"Bearer {self.token}"}
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(node.url + path, headers=headers, timeout=timeout_s, trust_env=False)
        return None

    def post(self, node: LabNode, path: str, body: Any, timeout_s: float = 5.0) -> httpx.Response | None:
        headers = {"Authorization": f"Bearer {self.token}"}
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(node.url + path, headers=headers, json=body, timeout=timeout_s, trust_env=False)
        return None

    def epoch(self) -> int:
        """As the database holds it."""
        return int(self.database.rows("SELECT epoch FROM consensus_fence WHERE id = 1")[0][0])

    def epoch_of_last_write(self) -> int:
        rows = self.database.rows("SELECT epoch FROM kernel_event ORDER BY `key` DESC LIMIT 1")
        return int(rows[0][0]) if rows else 0

    def all_ready(self) -> bool:
        answers = [self.get(node, "/health/ready") for node in self.nodes]
        return all(answer is not None and answer.status_code == 200 for answer in answers)

    def account(self) -> str:
        """What each node says of its readiness, and the end of its log: for whoever looks into a failure."""
        lines = []
        for node in self.nodes:
            answer = self.get(node, "/health/ready")
            said = f"{answer.status_code} {answer.text[:1000]}" if answer is not None else "no answer"
            lines.append(f"{node.name} (alive: {node.alive}): {said}\n{node.log[-4000:]}")
        return "\n".join(lines)

    def leader(self, among: list[LabNode] | None = None) -> LabNode | None:
        """The leader as the first node that answers tells it."""
        for node in among or self.nodes:
            if not node.up:
                continue
            answer = self.get(node, "/cluster/status", 1.0)
            if answer is not None and answer.status_code == 200 and answer.json()["leader"]:
                return next((one for one in self.nodes if one.netloc == answer.json()["leader"]), None)
        return None

    def wait_for_leader(self, but: LabNode | None = None, timeout_s: float = 30.0) -> LabNode:
        others = [node for node in self.nodes if node is not but]

        def look() -> LabNode | None:
            found = self.leader(others)
            return found if found is not but else None

        found = wait_for(look, "a leader", timeout_s, every_s=0.02)
        assert found is not None
        return found

    def evidence(self) -> Evidence:
        """What the platform holds, and what runs."""
        found = evidence.read(self.database.rows)
        found.processes = self.instances()
        return found

    def instances(self) -> dict[int, list[int]]:
        """Instance id → pids of what really runs."""
        return instances_on(self.hosts.hosts)

    def jump(self, node: LabNode, seconds: float) -> None:
        """The wall clock of one node (a lab with `clocks`)."""
        if self.shape.clocks:
            import struct

            with self.clock_of(node.state).open("r+b") as file:
                file.write(struct.pack("d", seconds))


def _hosts(count: int) -> Hosts:
    """Names and addresses that no other lab of this run, and hardly any other run, has."""
    number = next(_labs)
    return Hosts(f"ol{os.getpid() % 1000:03d}{number % 100}", count, f"10.{130 + number % 60}.{os.getpid() % 250}")


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:150]
    return ""


@functools.cache
def _clock_library() -> Path:
    """Compiled once in a run. Needs a C compiler, which mysqlclient needed before."""
    folder = Path(tempfile.mkdtemp(prefix="olc-"))
    library = folder / "clock_jump.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "clock_jump.c"), "-ldl"]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return library


def settle(lab: Lab, within_s: float = 90.0) -> float:
    """Until every node is ready again; how long that took."""
    begun = time.monotonic()
    try:
        wait_for(lab.all_ready, "every node ready again", within_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{lab.account()}") from None
    return time.monotonic() - begun


__all__ = ["PROJECT", "Lab", "Shape", "settle"]

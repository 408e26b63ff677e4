"""One node of a lab: the product's own supervisor and what it runs, on a host of its own.

Owns its life and its signals: start, kill -9 of the whole process group, freeze, thaw. Must not know the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omni.launch import proc
from omni.launch.spec import ProcessSpec
from omni.testing.hosts import Host

PROJECT = Path(__file__).resolve().parents[2]
_PLAN_TIMEOUT_S = 60
_MIGRATE_TIMEOUT_S = 240


def failpoints_of(state: Path, port: int) -> Path:
    """Where a test says what breaks in one node; several nodes may share a state directory."""
    return state / "failpoints" / str(port)


@dataclass
class LabNode:
    """`number` counts from 0 in the order of `instances`. `services`: broker, worker, ingress beside the node."""

    number: int
    host: Host
    port: int
    state: Path
    config: Path
    environment: Mapping[str, str] = field(repr=False)
    services: tuple[str, ...] = ()
    plan: dict[str, Any] = field(default_factory=dict, repr=False)
    process: subprocess.Popen[bytes] | None = None
    beside: list[subprocess.Popen[bytes]] = field(default_factory=list)
    frozen: bool = False

    @property
    def name(self) -> str:
        return f"{self.host.address}-{self.port}"

    @property
    def netloc(self) -> str:
        return f"{self.host.address}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.netloc}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def up(self) -> bool:
        """Neither dead nor frozen."""
        return self.alive and not self.frozen

    @property
    def folder(self) -> Path:
        return self.state / f"node-{self.port}"

    @property
    def log(self) -> str:
        """Everything that its processes wrote (rotated files too)."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("log*"), reverse=True))

    @property
    def failpoints(self) -> Path:
        return failpoints_of(self.state, self.port)

    def arm(self, point: str, action: str) -> None:
        """What happens when the next process of this node passes `point` (see omni.kernel.failpoints)."""
        (self.failpoints / f".{point}").write_text(action)
        (self.failpoints / f".{point}").rename(self.failpoints / point)

    def disarm(self) -> None:
        for path in self.failpoints.iterdir():
            if path.name != "hits":
                path.unlink(missing_ok=True)

    def hits(self, point: str = "") -> list[str]:
        """The lines of the failpoints that were hit."""
        path = self.failpoints / "hits"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if point in line]

    def prepare(self) -> None:
        """The product's plan of this host, and the folders that go with it."""
        self.failpoints.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "omni.launch.plan", "--config", str(self.config)]
        command += ["--port", str(self.port), "--address", self.host.address]
        done = self.host.run(command, timeout_s=_PLAN_TIMEOUT_S, cwd=PROJECT, env=dict(self.environment))
        if done.returncode:
            raise RuntimeError(f"{self.name} has no plan:\n{done.stdout}{done.stderr}")
        self.plan = json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())

    def migrate(self) -> None:
        for data in self.plan["migrate"]:
            spec = ProcessSpec.from_json(data)
            done = self.host.run(
                spec.argv, timeout_s=_MIGRATE_TIMEOUT_S, cwd=PROJECT, env=spec.environment(self.environment)
            )
            if done.returncode:
                raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])

    def start(self) -> None:
        """The node, and the first time its services."""
        if not self.beside:
            for data in [*self.plan["broker_process"], *self.plan["services"]]:
                if data["name"] in self.services:
                    self.beside.append(self._spawn(ProcessSpec.from_json(data)))
        mine = next(data for data in self.plan["nodes"] if data["name"] == f"node-{self.port}")
        self.process = self._spawn(ProcessSpec.from_json(mine))
        self.frozen = False

    def service(self, name: str) -> subprocess.Popen[bytes]:
        """The process of one of the services."""
        return self.beside[[data["name"] for data in self._services()].index(name)]

    def restart_service(self, name: str) -> None:
        number = [data["name"] for data in self._services()].index(name)
        self.beside[number] = self._spawn(ProcessSpec.from_json(self._services()[number]))

    def kill(self) -> None:
        """SIGKILL to the whole group, as when the machine's power fails (the apps' instances go on)."""
        self._signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)
        self.process, self.frozen = None, False

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    def stop(self) -> None:
        """SIGTERM, and after a while SIGKILL; the services too."""
        self.disarm()
        if self.frozen:
            self.thaw()
        everything = [process for process in (self.process, *self.beside) if process is not None]
        for process in everything:
            process.terminate()
        for process in everything:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        self.process, self.beside = None, []

    def sweep(self) -> None:
        """Whatever is left of this node's state directory, the instances too."""
        sweep = [sys.executable, "-m", "agent.sweep", "--state", str(self.state)]
        self.host.run(sweep, timeout_s=60, cwd=PROJECT, env=dict(self.environment))
        proc.end([found.pid for found in proc.left_of(str(self.state))], grace_s=2.0)

    def _services(self) -> list[dict[str, Any]]:
        found = [*self.plan["broker_process"], *self.plan["services"]]
        return [data for data in found if data["name"] in self.services]

    def _signal(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def _spawn(self, spec: ProcessSpec) -> subprocess.Popen[bytes]:
        log = Path(spec.log)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            return self.host.popen(
                spec.argv, cwd=spec.cwd or PROJECT, env=spec.environment(self.environment), stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip


def processes_on(hosts: list[Host]) -> Iterator[int]:
    """Every process that lives in one of these namespaces."""
    spaces = {Path("/run/netns", host.name).stat().st_ino for host in hosts}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and Path(entry, "ns", "net").stat().st_ino in spaces:
                yield int(entry.name)


def instances_on(hosts: list[Host]) -> dict[int, list[int]]:
    """Instance id → pids, by the mark that each instance's processes carry."""
    found: dict[int, list[int]] = {}
    for pid in processes_on(hosts):
        with contextlib.suppress(OSError):
            for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                name, _, value = word.partition(b"=")
                if name == b"OMNI_INSTANCE_ID" and value.isdigit() and not proc.is_zombie(pid):
                    found.setdefault(int(value), []).append(pid)
    return found

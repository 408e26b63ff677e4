"""Docker Swarm mode by itself, for `bench.vs_swarm`: the same app as a service of N tasks, by the SDK alone.

Owns the service, its callers and how they are looked at. Swarm gets what it can do best: start-first updates,
a health check, its own discovery by name (`dnsrr`, where the kernel has no IPVS for the mesh), restarts without delay.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import httpx

from agent.runtimes.engine.containers import have_host_image
from bench.harness import PROJECT, wait_for
from sandbox import bubblewrap

PORT = 8000
IMAGE = "localhost/bench-host:latest"
_ENGINES_OWN = ("/etc/resolv.conf", "/etc/hosts", "/sbin")
_NS = 1_000_000_000
LOOK_S = 0.05  # between two looks at either side: what looks takes time of the machine that is measured
_HEALTHY = {
    "Test": ["CMD-SHELL", f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{PORT}'"], "Interval": _NS,
    "Timeout": 2 * _NS, "Retries": 3,
}  # fmt: skip


class SwarmMode:
    """`app` is the folder that is run, `results` one that callers may write to; `addresses` are those of the swarm's
    nodes by their ids, where it has several."""

    def __init__(self, url: str, app: Path, results: Path, addresses: Mapping[str, str] | None = None) -> None:
        self._addresses = addresses or {}
        self.client = docker.APIClient(base_url=url, version="auto", timeout=60)
        self._http = httpx.Client(timeout=2, trust_env=False)
        self._app, self._results = app, results
        have_host_image(self.client, IMAGE)
        self._image = self.client.inspect_image(IMAGE)["Id"]
        self._network = self.client.create_network("bench", driver="overlay")["Id"]

    def close(self) -> None:
        for service in self.client.services():
            self.remove(service["Spec"]["Name"])
        with contextlib.suppress(docker.errors.APIError):
            self.client.remove_network(self._network)
        self.client.close()
        self._http.close()

    def create(self, name: str, count: int, *, checked: bool = False, delay_s: float = 0.0) -> None:
        command = f"exec {sys.base_prefix}/bin/python3 app.py"
        template = self._template(command, {"/app": str(self._app)}, {"PORT": str(PORT)}, delay_s)
        if checked:
            template["ContainerSpec"]["Healthcheck"] = _HEALTHY
        ports = [{"Protocol": "tcp", "TargetPort": PORT, "PublishMode": "host"}]
        self.client.create_service(
            template,
            name=name,
            mode={"Replicated": {"Replicas": count}},
            update_config={"Parallelism": 3, "Order": "start-first", "FailureAction": "pause", "Monitor": _NS},
            endpoint_spec={"Mode": "dnsrr", "Ports": ports},
        )

    def scale(self, name: str, count: int) -> None:
        about = self.client.inspect_service(name)
        version, mode = about["Version"]["Index"], {"Replicated": {"Replicas": count}}
        self.client.update_service(name, version, mode=mode, fetch_current_spec=True)

    def update(self, name: str, mark: str) -> None:
        """A rolling update to its end."""
        about = self.client.inspect_service(name)
        template = about["Spec"]["TaskTemplate"]
        template["ContainerSpec"]["Env"] = [f"PORT={PORT}", f"N={mark}"]
        self.client.update_service(name, about["Version"]["Index"], task_template=template, fetch_current_spec=True)
        wait_for(lambda: self._updated(name), f"the update of {name}", within_s=180, pace_s=LOOK_S)

    def _updated(self, name: str) -> bool:
        state = (self.client.inspect_service(name).get("UpdateStatus") or {}).get("State", "")
        if state not in ("", "updating", "completed"):
            raise RuntimeError(f"the update of {name} is {state}")
        return bool(state == "completed")

    def wait_serving(self, name: str, count: int, but: str = "", but_node: str = "") -> None:
        """Until `count` running tasks answer their health page; `but` names a container that does not count, `but_node`
        a node."""
        good: set[str] = set()

        def serving() -> bool:
            tasks = [t for t in self._running(name) if _container(t) != but and t.get("NodeID") != but_node]
            good.intersection_update(task["ID"] for task in tasks)
            for task in tasks:
                if task["ID"] not in good and self._answers(task):
                    good.add(task["ID"])
            return len(good) >= count

        wait_for(serving, f"{count} tasks of {name}", within_s=180, pace_s=LOOK_S)

    def container(self, name: str) -> str:
        return _container(self._running(name)[0])

    def remove(self, name: str) -> None:
        self.client.remove_service(name)
        label = {"label": [f"com.docker.swarm.service.name={name}"]}
        wait_for(lambda: not self.client.containers(all=True, filters=label), f"the end of {name}", within_s=180)

    def call(self, name: str, rate: float) -> Path:
        """Callers in the service's own network; they write to the file that is returned."""
        file = self._results / "calls.json"
        command = f"exec {sys.base_prefix}/bin/python3 -m bench.callers {name} {PORT} {rate} /results/calls.json"
        template = self._template(command, {"/app": str(PROJECT)}, {}, 0.0)
        mount = {"Type": "bind", "Source": str(self._results), "Target": "/results", "ReadOnly": False}
        template["ContainerSpec"]["Mounts"].append(mount)
        self.client.create_service(template, name="callers", endpoint_spec={"Mode": "dnsrr"})
        wait_for(lambda: answered(file).get("200"), "the first answers", within_s=60)
        return file

    def _template(self, command: str, folders: dict[str, str], env: dict[str, str], delay_s: float) -> dict[str, Any]:
        system = [(b.source, b.target) for b in bubblewrap.runtime_binds() if b.target not in _ENGINES_OWN]
        binds = [*system, *((source, target) for target, source in folders.items())]
        return {
            "ContainerSpec": {
                "Image": self._image,
                "Command": ["/bin/sh", "-c", command],
                "Dir": "/app",
                "Env": [f"{name}={value}" for name, value in env.items()],
                "Init": True,
                "Mounts": [{"Type": "bind", "Source": s, "Target": t, "ReadOnly": True} for s, t in binds],
            },
            "Resources": {"Limits": {"MemoryBytes": 64 << 20}},
            "RestartPolicy": {"Condition": "any", "Delay": int(delay_s * _NS)},
            "Networks": [{"Target": self._network}],
        }

    def _answers(self, task: dict[str, Any]) -> bool:
        ports = (task["Status"].get("PortStatus") or {}).get("Ports") or ()
        with contextlib.suppress(httpx.HTTPError, StopIteration):
            port = next(one["PublishedPort"] for one in ports)
            address = self._addresses.get(str(task.get("NodeID")), "127.0.0.1")
            return self._http.get(f"http://{address}:{port}/healthz").status_code == 200
        return False

    def _running(self, name: str) -> list[dict[str, Any]]:
        found = self.client.tasks(filters={"service": name, "desired-state": "running"})
        return [task for task in found if task["Status"]["State"] == "running"]


def answered(file: Path) -> dict[str, int]:
    """What the callers have counted so far."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(file.read_text())["statuses"])
    return {}


def p99_ms(file: Path) -> float:
    return float(json.loads(file.read_text())["p99_ms"])


def _container(task: dict[str, Any]) -> str:
    return str((task["Status"].get("ContainerStatus") or {}).get("ContainerID", ""))


def free_address() -> str:
    """A loopback address of this process's own: Swarm's ports have fixed numbers."""
    probe = socket.socket()
    for last in range(2, 250):
        with contextlib.suppress(OSError):
            probe.bind((f"127.77.0.{last}", 7946))
            probe.close()
            return f"127.77.0.{last}"
    raise RuntimeError("port 7946 is taken on every address that was tried")

"""The real platform, started by `start.sh` with ports and a state directory of its own.

Owns starting, stopping and looking at it from outside. Speaks to it over HTTP only.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from omni.testing import migrated

PROJECT = Path(__file__).resolve().parent.parent
EXAMPLES = PROJECT / "examples"
Result = TypeVar("Result")


PATIENCE = 3.0  # how many times slower than ours a machine may be; costs time only where something fails
_ELECTION_S = 60.0


def wait_for(look: Callable[[], Result], what: str, timeout_s: float = 60.0, every_s: float = 0.0) -> Result:
    """The first true answer of `look`; AssertionError with the last answer after `timeout_s` times our patience.

    Without `every_s` it looks often at first and then less: to look takes time of the machine that is looked at.
    """
    timeout_s *= PATIENCE
    began = time.monotonic()
    deadline = began + timeout_s
    last: Any = None
    while time.monotonic() < deadline:
        last = look()
        if last:
            return last
        time.sleep(every_s or min(max(0.1, (time.monotonic() - began) / 8), 0.25))
    raise AssertionError(f"{what} did not happen within {timeout_s:g} s; last seen: {last!r}")


def archive(folder: Path, **extra: str) -> bytes:
    """A tar.gz of `folder`; `extra` files (name with __ for a dot) are put on top, or in the place of what is there."""
    out = io.BytesIO()
    replaced = {name.replace("__", ".") for name in extra}
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.relative_to(folder).as_posix() in replaced:
                continue
            if "node_modules" not in path.parts and "__pycache__" not in path.parts:
                tar.add(path, path.relative_to(folder).as_posix(), recursive=False)
        for name, text in extra.items():
            data = text.encode()
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


_BLOCK, _RAFT_OFFSET = 10, 5


def free_ports(count: int) -> list[int]:
    """A run of neighbouring free ports; those of Raft, `_RAFT_OFFSET` further on, are free too."""
    for first in range(18000 + os.getpid() % 800 * _BLOCK, 29000, _BLOCK):
        if all(_is_free(port) for port in range(first, first + _BLOCK)):
            return list(range(first, first + count))
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


@dataclass
class Platform:
    """A running platform. `members` are base URLs in the order of `instances`; who leads is asked, not known."""

    state: Path
    config: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    migrates: bool = False  # itself, at its first start; otherwise it gets a copy of what another start migrated
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepared(
        cls, folder: Path, members: int = 3, environment: dict[str, str] | None = None, **keys: Any
    ) -> Platform:
        assert members < _RAFT_OFFSET, "more members need a wider block of ports"
        ports = free_ports(members + 1)
        nodes = [{"port": port, "address": "127.0.0.1"} for port in ports[:members]]
        config = {
            "port": ports[0],
            "address": "127.0.0.1",
            "highlight_sql": False,
            "instances": nodes,
            "raft_port_offset": _RAFT_OFFSET,
            "ingress": {"port": ports[members]},
            "agent": {"port_base": 30000 + (ports[0] % 50) * 500, "port_count": 200},
            **keys,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        return cls(folder / "state", config, environment or {})

    @property
    def members(self) -> list[str]:
        return [f"http://{node['address']}:{node['port']}" for node in self.config["instances"]]

    @property
    def output(self) -> Path:
        return self.state.parent / "start.out"

    def start(self, *options: str, timeout_s: float = 120) -> Platform:
        command = [
            "./start.sh",
            "--config",
            str(self.state.parent / "config.json"),
            "--state",
            str(self.state),
            *options,
        ]
        if not self.migrates:
            migrated.lay(self.state, self.state.parent / "config.json", self.environment)
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=PROJECT, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **self.environment},
                start_new_session=True,
            )  # fmt: skip
        wait_for(self._is_up, "the platform's start", timeout_s)
        wait_for(self._all_nodes_ready, "every node's being ready for apps", timeout_s)  # so that they are spread
        return self

    def _all_nodes_ready(self) -> bool:
        nodes = self.api().ok("GET", "/nodes")["items"]
        return [node["status"] for node in nodes] == ["ready"] * len(self.members)

    def _is_up(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"start.sh ended with {self.process.returncode}:\n{self.output.read_text()[-4000:]}")
        return "admin token" in self.output.read_text()

    def stop(self, timeout_s: float = 40) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    @property
    def token(self) -> str:
        return (self.state / "admin.token").read_text().strip()

    def api(self, member: int = 0, token: str | None = None) -> Api:
        return Api(self.members[member], token or self.token)

    def leader(self, timeout_s: float = 30) -> int:
        """Which member leads, as a member that answers says; waits while an election runs."""
        return wait_for(self._leader, "a leader", timeout_s)[0]

    def followers(self) -> list[int]:
        leader = self.leader()
        return [member for member in range(len(self.members)) if member != leader]

    def _leader(self) -> list[int]:
        netlocs = [f"{node['address']}:{node['port']}" for node in self.config["instances"]]
        for member in range(len(self.members)):
            with contextlib.suppress(httpx.HTTPError):
                found = self.api(member)("GET", "/cluster/status", timeout=3).json()
                if found.get("leader") in netlocs:
                    return [netlocs.index(found["leader"])]
        return []

    def open(self, app: dict[str, Any], path: str = "/", **options: Any) -> httpx.Response:
        """A request to an app through the ingress, as a browser would send it."""
        host = httpx.URL(app["urls"][0]).host
        url = f"http://127.0.0.1:{self.config['ingress']['port']}{path}"
        return httpx.get(url, headers={"Host": host}, timeout=10, **options)

    def answers(self, app: dict[str, Any], timeout_s: float = 30) -> None:
        """Wait until the app answers 200 through the ingress; a failure tells what it said instead, and the logs."""
        said = ""

        def look() -> bool:
            nonlocal said
            try:
                answer = self.open(app)
            except httpx.HTTPError as error:
                said = repr(error)
                return False
            said = f"{answer.status_code} {answer.text[:300]}"
            return answer.status_code == 200

        try:
            wait_for(look, f"an answer of {app['name']}", timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}: {said}\n{self.account('ingress')}") from None

    def account(self, part: str) -> str:
        """The end of what the processes of `part` wrote, e.g. of the ingress or of node-18000."""
        logs = sorted(path for path in self.state.rglob("*log*") if part in str(path.relative_to(self.state)))
        return "\n".join(
            f"-- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in logs if path.is_file()
        )

    def supervisor(self, member: int) -> int:
        """The process group of a node."""
        port = self.config["instances"][member]["port"]
        return int((self.state / f"node-{port}" / "supervisor.pid").read_text().split()[0])

    def processes(self, mark: str) -> list[psutil.Process]:
        """The processes that `start.sh` marked so, e.g. worker, broker, node-8000/web; parents first."""
        labels = (f"OMNI_PROCESS={mark}", f"OMNI_STATE={self.state}")
        found = [psutil.Process(pid) for pid in processes_with(*labels)]
        return sorted(found, key=lambda process: process.create_time())

    def app_process(self, instance_id: int) -> psutil.Process:
        """The app's own process of one instance: the last one inside its sandbox."""
        inside = [psutil.Process(pid) for pid in processes_with(f"OMNI_INSTANCE_ID={instance_id}", mounted=self.state)]
        return max(inside, key=lambda process: process.create_time())


def processes_with(*labels: str, mounted: Path | None = None) -> Iterator[int]:
    """Processes that have all of these in their environment (and a mount from below `mounted`)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
            mounts = (entry / "mountinfo").read_text() if mounted else ""
        except OSError:
            continue
        if set(labels) <= set(environment) and (mounted is None or str(mounted) in mounts):
            yield int(entry.name)


class Api:
    """The public API as a client sees it."""

    def __init__(self, base: str, token: str) -> None:
        self.client = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    def __call__(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return self.client.request(method, path, **options)

    def _patiently(self, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """As every client is told to do: what an election refused, and says was not applied, is asked again."""
        deadline = time.monotonic() + _ELECTION_S
        while True:
            answer = ask()
            refused = answer.status_code == 503 and answer.headers.get("omni-outcome") == "not-applied"
            if not refused or answer.json().get("code") != "no_leader" or time.monotonic() > deadline:
                return answer
            time.sleep(min(float(answer.headers.get("retry-after", "1")), 2.0))

    def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        answer = self._patiently(lambda: self(method, path, body, **options))
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json() if answer.content else None

    def create(self, name: str, **fields: Any) -> dict[str, Any]:
        return dict(self.ok("POST", "/app/create", {"name": name, "memory_mb": 128, **fields}))

    def upload(self, app: str, version: str, data: bytes, query: str = "", **headers: str) -> httpx.Response:
        headers = {"Content-Type": "application/gzip", **headers}
        path = f"/app/{app}/release/{version}/upload{query}"
        return self._patiently(lambda: self.client.post(path, content=data, headers=headers))

    def built(self, app: str, version: str, data: bytes, query: str = "", timeout_s: float = 180) -> dict[str, Any]:
        """Upload and wait for the build's end."""
        answer = self.upload(app, version, data, query)
        assert answer.status_code in (200, 202), answer.text
        path = answer.json()["links"]["self"]

        def ended() -> dict[str, Any] | None:
            build = self.ok("GET", path)
            return build if build["status"] in ("succeeded", "failed", "cancelled") else None

        return dict(wait_for(ended, f"the end of build {path}", timeout_s))

    def info(self, app: str) -> dict[str, Any]:
        return dict(self.ok("GET", f"/app/{app}/info"))

    def healthy(self, app: str, count: int, version: str | None = None, timeout_s: float = 90) -> dict[str, Any]:
        """Wait until exactly `count` instances run, all healthy (of `version`)."""

        def settled() -> dict[str, Any] | None:
            info = self.info(app)
            summary = info["instances_summary"]
            fits = summary["healthy"] == summary["running"] == count and info["status"] in ("running", "stopped")
            return info if fits and (version is None or info["version"]["current"] == version) else None

        return dict(wait_for(settled, f"{count} healthy instances of {app}", timeout_s))

    def ended(self, deployment: dict[str, Any], timeout_s: float = 120) -> dict[str, Any]:
        """Wait for a deployment's end."""

        def look() -> dict[str, Any] | None:
            found = self.ok("GET", deployment["links"]["self"])
            return found if found["status"] in ("succeeded", "failed", "cancelled", "reverted") else None

        return dict(wait_for(look, f"the end of deployment {deployment['id']}", timeout_s))

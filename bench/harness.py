"""A platform for one benchmark run: private state directory, private MariaDB (or SQLite), the launcher's own processes.

Owns their start and their end. What a bench wants to compare with runs beside it: `floor` is bare Django behind the
same front, with as many workers and threads, on the same database.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import psutil

from omni.launch import proc
from omni.launch.spec import ProcessSpec
from omni.testing.mariadb import PrivateMariaDB

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "bench" / "RESULTS.md"
_OURS = ("OMNI_", "DJANGO_")


class Platform:
    """`with Platform(database="mariadb", run=("web", "daemon")) as p: p.port, p.token`.

    `run` names what is started: of a node web, daemon, agent; of the machine broker, worker, ingress.
    """

    def __init__(
        self, *, database: str = "mariadb", run: Iterable[str] = ("web", "daemon"), config: dict[str, Any] | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="omni-bench-", dir=os.environ.get("OMNI_BENCH_DIR")))
        self.state = self.folder / "state"
        self.port, self.floor_port, self.ingress_port = free_ports(3)
        self._run, self._given = set(run), config or {}
        self._stack = contextlib.ExitStack()
        self._server: PrivateMariaDB | None = None
        self._database = database
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}

    def __enter__(self) -> Platform:
        try:
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, kind: object = None, *_: object) -> None:
        if kind is not None:
            print(self._logs(), file=sys.stderr)
        for process in reversed(list(self.processes.values())):
            process.terminate()
        for process in reversed(list(self.processes.values())):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                continue
            process.kill()
            process.wait()
        # Now that no agent is there to start them again, and no worker whose packet filter is needed.
        for sweep in (
            ["agent.sweep", "--state", str(self.state)],
            ["releases.worker_sweep", str(self.state / "worker")],
        ):
            subprocess.run(
                [sys.executable, "-m", *sweep], cwd=PROJECT, env=self.environment, capture_output=True, timeout=60,
                check=False,
            )  # fmt: skip
        left = proc.marked(str(self.state), lambda _mark: True)
        proc.end([found.pid for found in left], grace_s=3.0)
        self._stack.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.state / "admin.token").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=60, trust_env=False)

    def sql(self, statement: str) -> str:
        """Straight into MariaDB, past everything: for filling tables."""
        assert self._server is not None
        return self._server.execute(f"USE omni; {statement}")

    def manage(self, code: str, timeout_s: float = 600) -> str:
        """Run Python inside this platform's Django; what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", "import django; django.setup()\n" + code],
            cwd=PROJECT, env=self._django("command"), capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return done.stdout

    def pids(self, name: str) -> list[int]:
        """The processes behind `web`, `floor`, `daemon`…: the one that was started and its children; `database`."""
        if name == "database":
            return [self._server.pid] if self._server is not None else []
        parent = psutil.Process(self.processes[name].pid)
        return [parent.pid, *(child.pid for child in parent.children(recursive=True))]

    def start_floor(self) -> None:
        """Bare Django on `floor_port`, served like a node."""
        if self._server is not None:
            self.sql("CREATE TABLE IF NOT EXISTS bench_row (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(100) "
                     "NOT NULL UNIQUE); INSERT IGNORE INTO bench_row (id, name) VALUES (1, 'first')")  # fmt: skip
        argv = [str(self.floor_port) if word == str(self.port) else word for word in self._web_argv]
        environment = {**self._django("web"), "DJANGO_SETTINGS_MODULE": "bench.floor_settings", **self._web_set}
        environment["DJANGO_SETTINGS_MODULE"] = "bench.floor_settings"
        self._spawn("floor", argv, environment, self.folder / "floor.log")
        wait_for(lambda: answers(f"http://127.0.0.1:{self.floor_port}/empty"), "the floor")

    def _start(self) -> None:
        if self._database == "mariadb":
            self._server = self._stack.enter_context(PrivateMariaDB(durable=True))
            self.environment["OMNI_DATABASE_URL"] = self._server.create("omni")
        given = {
            "port": self.port,
            "address": "127.0.0.1",
            "instances": [{"port": self.port, "address": "127.0.0.1"}],
            "environment": "development",
            "ingress": {"port": self.ingress_port},
            **self._given,
        }
        config = self.folder / "config.json"
        config.write_text(json.dumps(given))
        self.environment |= {"OMNI_CONFIG": str(config), "OMNI_STATE": str(self.state)}
        plan = self._plan(config)
        for data in plan["migrate"]:
            self._finish(ProcessSpec.from_json(data))
        self._start_specs([*plan["broker_process"], *plan["node_processes"][str(self.port)], *plan["services"]])
        if "web" in self._run:
            wait_for(lambda: answers(f"{self.url}/health/ready"), "the node", self._logs)

    def _plan(self, config: Path) -> dict[str, Any]:
        command = [sys.executable, "-m", "omni.launch.plan", "--config", str(config)]
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        plan: dict[str, Any] = json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())
        return plan

    def _start_specs(self, specs: list[dict[str, Any]]) -> None:
        for data in specs:
            spec = ProcessSpec.from_json(data)
            if spec.name == "web":
                self._web_argv, self._web_set = list(spec.argv), dict(spec.set)
            if spec.name in self._run:
                self._spawn(spec.name, list(spec.argv), spec.environment(self.environment), Path(spec.log), spec.cwd)

    def _finish(self, spec: ProcessSpec) -> None:
        done = subprocess.run(
            spec.argv,
            cwd=spec.cwd or PROJECT,
            env=spec.environment(self.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])

    def _spawn(self, name: str, argv: list[str], environment: dict[str, str], log: Path, cwd: str = "") -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self.processes[name] = subprocess.Popen(
                argv, cwd=cwd or PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def _django(self, role: str) -> dict[str, str]:
        given = {"OMNI_ROLE": role, "DJANGO_SETTINGS_MODULE": "omni.settings", "OMNI_NODE": f"127.0.0.1-{self.port}"}
        return {**self.environment, **given, "OMNI_PROCESS": "bench"}

    def _logs(self) -> str:
        found = [*self.state.glob("node-*/log"), self.folder / "floor.log"]
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in found if path.exists())


def free_ports(count: int) -> list[int]:
    """Ports below the range that connections are given, so that none is taken in between."""
    found: list[int] = []
    start = 14000 + os.getpid() % 900 * 4
    for port in range(start, start + 2000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    return False


def wait_for(
    condition: Callable[[], Any],
    what: str,
    evidence: Callable[[], str] = str,
    within_s: float = 60.0,
    pace_s: float = 0.05,
) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come within {within_s:g} s\n{evidence()}")
        time.sleep(pace_s)
    return found


def report(name: str, lines: list[str]) -> None:
    """Print a result and keep it in RESULTS.md with date and machine, in place of the last one of that bench."""
    text = "\n".join(lines)
    print(text)
    entry = f"## {name}\n\n{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC · {machine()}\n\n{text}\n"
    head = "# Results of the benches\n\nThe newest result of each (`bench/README.md`); ratios count, not rates.\n"
    parts = RESULTS.read_text(encoding="utf-8").split("\n## ")[1:] if RESULTS.exists() else []
    kept = [f"## {part.strip()}\n" for part in parts if part.splitlines()[0] != name]
    RESULTS.write_text("\n".join([head, *kept, entry]), encoding="utf-8")


def machine() -> str:
    """Processor, cores, memory, kernel, load: what a figure depends on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    version = platform.python_version()
    return (
        f"{model}, {os.cpu_count()} cores, {memory} GiB, Linux {platform.release()}, Python {version}, "
        f"load before {os.getloadavg()[0]:.1f}"
    )


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]

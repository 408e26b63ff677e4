"""`./start.sh`: the whole platform of config.json on this machine, from one command to one Ctrl-C.

Owns the order of things: plan, leftovers, ports, broker, migrations, nodes and services, ready, stop. What the
processes are is `plan`'s business, keeping them alive `supervisor`'s. Must import neither Django nor pydantic.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from omni.launch import options as command_line
from omni.launch import proc, screen
from omni.launch.options import Options
from omni.launch.pidfile import AlreadyRunning, PidFile
from omni.launch.spec import ProcessSpec
from omni.launch.supervisor import Signals, Supervisor

PROJECT = Path(__file__).resolve().parents[2]
_PLAN_TIMEOUT_S = 300  # --fresh asks, and stops what still runs
_MIGRATE_TIMEOUT_S = 600.0
_BROKER_TIMEOUT_S = 10.0
_READY_TIMEOUT_S = 180.0
_DEMO_TIMEOUT_S = 300.0
_SERVES_ON = "caddy"  # the mark of the one process that outlives an ingress that was killed


class Failed(Exception):
    """The platform cannot be started; `lines` say why."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def main(arguments: list[str]) -> int:
    options = command_line.parse(arguments)
    if isinstance(options, int):
        return options
    view = screen.Screen()
    print("Omni Orchestrator", flush=True)
    view.begin("configuration", "reading")
    plan = read_plan(options)
    if isinstance(plan, int):
        return plan
    view.end(f"{Path(plan['config']).name}, {_count(len(plan['here']), 'node')} on this machine")
    for warning in plan["warnings"]:
        view.say(f"warning: {warning}")
    pid_file = PidFile(Path(plan["state"]) / "start.pid")
    try:
        pid_file.take()
    except AlreadyRunning as other:
        view.fail(f"Already running: pid {other.pid}, state {plan['state']}. Stop it with: kill {other.pid}")
        return 1
    try:
        return Platform(plan, options, view).run()
    finally:
        pid_file.release()


def read_plan(options: Options) -> dict[str, Any] | int:
    """The plan, made by a process of its own; an exit code when there can be none."""
    path = options.plan
    if not path:
        environment = dict(os.environ)
        if options.state:
            environment["OMNI_STATE"] = str(Path(options.state).absolute())
        sql = "on" if options.sql else "auto" if sys.stdout.isatty() else "off"
        command = [sys.executable, "-m", "omni.launch.plan", "--sql", sql]
        command += ["--config", str(Path(options.config).absolute())] if options.config else []
        command += [f"--{name}" for name in ("fresh", "no-restart") if getattr(options, name.replace("-", "_"))]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            cwd=PROJECT,
            env=environment,
            timeout=_PLAN_TIMEOUT_S,
            check=False,
            text=True,
        )
        if done.returncode:
            return done.returncode
        path = done.stdout.strip().splitlines()[-1]
    data: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return {**data, "path": path}


class Platform:
    """One run, from the first process to the last."""

    def __init__(self, plan: dict[str, Any], options: Options, view: screen.Screen) -> None:
        self.plan = plan
        self.options = options
        self.view = view
        self.signals = Signals()
        self.supervisor = Supervisor(plan["state"], restart=not options.no_restart, say=view.say, signals=self.signals)

    def run(self) -> int:
        try:
            self._clear_leftovers()
            self._check_ports()
            self._start_broker()
            self._migrate()
            self._start_all()
            code = self._wait_until_ready()
            if self.signals.stops:
                code = 0
            if code == 0 and self.options.demo and not self.signals.stops:
                self._run_module("omni.launch.demo", _DEMO_TIMEOUT_S)
            while not self.signals.stops and not self.options.once:
                self.supervisor.watch(60.0)
        except Failed as failure:
            self.view.fail(*failure.lines)
            code = 1
        self._stop()
        return code or 0

    def _clear_leftovers(self) -> None:
        """All but a Caddy that serves on: the next ingress adopts it, so that no request to an app is lost."""
        left = [found for found in proc.left_of(self.plan["state"]) if found.mark != _SERVES_ON]
        # Asked to stop, an ingress would take its Caddy along.
        proc.kill([found.pid for found in left if found.mark == "ingress"])
        if left:
            names = ", ".join(sorted({found.mark for found in left}))
            self.view.begin("leftovers", f"stopping {names}")
            proc.end([found.pid for found in left], grace_s=8.0)
            self.view.end(f"{_count(len(left), 'process', 'processes')} of an earlier start stopped")

    def _check_ports(self) -> None:
        problems = []
        served = any(found.mark == _SERVES_ON for found in proc.left_of(self.plan["state"]))
        for address, port, what in self.plan["ports"]:
            error = proc.can_listen(address, port)
            if error is not None and not (what == "ingress" and served):
                who = proc.holder(port)
                held = f"is taken by {who}" if who else f"cannot be used: {error.strerror}"
                problems.append(f"Port {port} on {address} ({what}) {held}.")
        if problems:
            raise Failed(*problems, "Stop that program, or choose other ports in config.json (docs/config.md).")

    def _start_broker(self) -> None:
        for data in self.plan["broker_process"]:
            self.view.begin("broker", "starting")
            spec = ProcessSpec.from_json(data)
            if self.plan.get("broker_socket"):
                Path(self.plan["broker_socket"]).unlink(missing_ok=True)  # of a broker that was killed
            self.supervisor.start(spec)
            self._wait_for_socket(spec)
            self.view.end(self.plan["broker"])

    def _wait_for_socket(self, spec: ProcessSpec) -> None:
        """Until the broker's socket is there."""
        path = self.plan.get("broker_socket", "")
        deadline = time.monotonic() + _BROKER_TIMEOUT_S
        while path and not Path(path).exists() and not self.signals.stops:
            if time.monotonic() > deadline:
                raise Failed("The broker does not start:", *screen.last_lines(spec.log))
            self.supervisor.watch(0.05)

    def _migrate(self) -> None:
        if self.signals.stops:
            return
        self.view.begin("database", "migrating")
        stamp = Path(self.plan["state"]) / "run" / "schema"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == self._schema():
            self.view.end(f"{self.plan['database']}, schema unchanged")
            return
        for data in self.plan["migrate"]:
            spec = ProcessSpec.from_json(data)
            code = self.supervisor.run(spec, _MIGRATE_TIMEOUT_S, until=self._stopping)
            if code and not self._stopping():
                raise Failed(
                    f"The database ({self.plan['database']}) cannot be migrated:", *screen.last_lines(spec.log)
                )
        if self._stopping():
            return  # interrupted: nobody knows how far it came
        stamp.write_text(self._schema(), encoding="utf-8")
        self.view.end(self.plan["database"])

    def _schema(self) -> str:
        """The migrations there are and the very files that they were applied to; unlike anything without files."""
        schema = self.plan.get("schema", {"digest": "", "files": []})
        files = [Path(file) for file in schema["files"]]
        if not files or not all(file.exists() for file in files):
            return f"not known at {time.time_ns()}"
        return " ".join([schema["digest"], *(str(file.stat().st_ino) for file in files)])

    def _start_all(self) -> None:
        if self.signals.stops:
            return
        for data in [*self.plan["nodes"], *self.plan["services"]]:
            self.supervisor.start(ProcessSpec.from_json(data))

    def _wait_until_ready(self) -> int | None:
        if self.signals.stops:
            return 0
        return self._run_module("omni.launch.ready", _READY_TIMEOUT_S)

    def _run_module(self, name: str, timeout_s: float) -> int | None:
        """Something that talks HTTP and prints, in a process of its own so that its libraries go with it."""
        argv = self._command(name, str(self.plan["path"]))
        spec = ProcessSpec(name, argv, "", "start", {"OMNI_STATE": self.plan["state"]}, cwd=str(PROJECT))
        return self.supervisor.run(spec, timeout_s, until=self._stopping)

    def _command(self, module: str, *arguments: str) -> tuple[str, ...]:
        """`python -m module …`; a test's plan may name another command."""
        other = self.plan.get("commands", {}).get(module)
        return tuple(other) if other else (sys.executable, "-m", module, *arguments)

    def _stopping(self) -> bool:
        return self.signals.stops > 0

    def _stop(self) -> None:
        """Nodes and services, then the instances, then the broker: gone within `shutdown_s`."""
        begun = time.monotonic()
        allowed = float(self.plan["shutdown_s"])
        stops = self.signals.stops
        self.view.begin("stopping", "nodes, worker, ingress")
        broker = [data["name"] for data in self.plan["broker_process"]]
        others = [name for name in self.supervisor.children if name not in broker]

        def hurry() -> bool:
            return self.signals.stops > stops + 1 or time.monotonic() - begun > allowed * 0.6

        self.supervisor.stop(others, hurry=hurry)
        left = max(3.0, allowed - (time.monotonic() - begun) - 2.0)
        argv = self._command("agent.sweep", "--state", self.plan["state"])
        log = str(Path(self.plan["state"]) / "run" / "sweep.log")
        sweep = ProcessSpec("sweep", argv, log, "start", {"OMNI_STATE": self.plan["state"]}, cwd=str(PROJECT))
        if self.supervisor.run(sweep, left) is None:
            self.view.say("some instances did not stop in time")
        self.supervisor.stop([name for name in broker if name in self.supervisor.children], hurry=hurry)
        proc.end([found.pid for found in proc.left_of(self.plan["state"])], grace_s=1.0)
        self.view.end("everything is stopped")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

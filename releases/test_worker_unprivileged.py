"""The same builds where the platform is not root: isolated by a user namespace, or honestly not at all."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from releases.builders.base import base_python
from releases.registry_settings import read
from sandbox.archive import unpack
from sandbox.bubblewrap import Bind, Spec, command, environment, find_bwrap, runtime_binds
from sandbox.probe import Facts

PROJECT = Path(__file__).parents[1]
UID = 300_123
SYSTEM_PYTHON = "/usr/bin/python3.11"
PACKAGES = str(Path(pytest.__file__).parents[1])
SCRIPT = """
import io, json, sys, tarfile
from pathlib import Path
from releases.fake_plane import Plane, Server
from releases.tasks import WorkerSettings, attempt
from releases.worker_client import ControlPlane
for name in ("static-site", "python-flask"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(f"{sys.argv[2]}/examples/{name}", ".")
    plane = Plane(artifact=out.getvalue())
    with Server(plane) as url:
        settings = WorkerSettings("w", "t", (url,), Path(sys.argv[3], "worker"), 1.0, 171_000, sys.argv[1])
        client = ControlPlane([url], "t")
        outcome = attempt(client, client.claim(5, "w", 5), settings)
    for data in plane.packages.values():
        Path(sys.argv[3], name).write_bytes(data)
    print(json.dumps([name, outcome.outcome, plane.log]))
"""


@pytest.fixture(autouse=True)
def lease() -> None:
    """No lease of the control plane is needed here: nothing is written."""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:  # pytest's own directories are closed to other users
        os.chown(made, UID, UID)
        yield Path(made)


def check(done: subprocess.CompletedProcess[str], room: Path, isolated: bool) -> None:
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    outcomes = [(name, outcome) for name, outcome, _ in results]
    assert outcomes == [("static-site", "succeeded"), ("python-flask", "succeeded")], results
    assert "Note: not root" in results[1][2]
    assert ("Note: no isolation" in results[1][2]) != isolated
    unpack(room / "python-flask", room / "tree")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.skipif(not Path(SYSTEM_PYTHON).exists(), reason="needs a Python that every user can read")
def test_without_root_builds_are_isolated_by_a_user_namespace(room: Path) -> None:
    if not os.stat(PACKAGES).st_mode & 0o001:  # noqa: PTH116
        pytest.skip("this checkout is closed to other users")
    env = {
        "PYTHONPATH": f"{PROJECT}:{PACKAGES}",
        "OMNI_STATE": str(room / "state"),
        "HOME": str(room),
        "PATH": "/usr/bin",
    }
    as_user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    done = subprocess.run(
        [*as_user, SYSTEM_PYTHON, "-c", SCRIPT, "", str(PROJECT), str(room)],
        env={**read().env, **env, "PIP_CONFIG_FILE": os.environ.get("PIP_CONFIG_FILE", "")},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "Note: no isolation" in done.stdout:
        pytest.skip("the kernel allows no unprivileged user namespaces")
    check(done, room, isolated=True)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_without_root_and_sandbox_builds_work_and_say_so(room: Path, tmp_path: Path) -> None:
    bwrap = find_bwrap()
    if bwrap is None:
        pytest.skip("no bubblewrap to become another user in")
    registries = read()
    # An outer sandbox stands for a host on which this user may read Python, the project and the registries' settings.
    outer = Spec(
        argv=[base_python(), "-c", SCRIPT, "/nonexistent/bwrap", "/src", "/room"],
        env={"PYTHONPATH": "/src:/packages", "PATH": "/usr/bin:/bin", "OMNI_STATE": "/tmp/state", **registries.env},
        cwd="/src",
        binds=[
            *runtime_binds(),
            *registries.write(tmp_path / "conf"),
            Bind(str(PROJECT), "/src"),
            Bind(PACKAGES, "/packages"),
            Bind(str(room), "/room", writable=True),
        ],
        uid=UID,
        gid=UID,
        tmp_mb=900,
    )
    facts = Facts("bubblewrap", "none", "shared", [], bwrap, True)
    done = subprocess.run(
        command(outer, facts), env=environment(outer, facts), capture_output=True, text=True, timeout=120
    )
    check(done, room, isolated=False)
    ran = subprocess.run([room / "tree/.venv/bin/flask", "--version"], capture_output=True, text=True)
    assert "Flask 3" in ran.stdout, "scripts find their Python beside themselves"

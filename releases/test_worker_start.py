"""The build worker's own user: what a build that has escaped as far as the worker itself can still not do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omni.testing import build_users
from releases import worker_sweep
from releases.registry_settings import RegistrySettings
from releases.worker_given import Given, from_json
from sandbox.identity import uid_for, uid_range
from sandbox.probe import Facts, probe

PROJECT = Path(__file__).parents[1]
UID_BASE = build_users.uid_base()
WORKER = uid_for("worker", 0, UID_BASE)
KEYS = ("cluster.secret", "master.key", "django.key", "admin.token", "admin.password")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a user of its own")
pytestmark = pytest.mark.slow

# What a program does that runs as the worker. Each line is one thing that must not work.
ATTACKS = """
import ctypes, json, os, pathlib, signal, subprocess, sys
if "4294967295" in open("/proc/self/uid_map").read():
    sys.exit("root itself: nothing is tried")
state, keys, parent = pathlib.Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
got = []
def tries(what, act):
    try:
        result = act()
    except OSError:
        return
    got.append([what, str(result)[:60]])
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
def read_all(where):
    for key in keys:
        tries(f"{where} {key}", lambda: open(where / key).read())
def in_child(act):
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except OSError:
            os._exit(0)
        os._exit(1)
    if os.waitpid(pid, 0)[1]:
        got.append(["child", act.__name__])
def other_users():
    for uid in (61000, 1000, 65534):
        os.setresuid(uid, uid, uid)
def own_mounts():
    call("unshare", 0x00020000)
    libc.umount2(str(state).encode(), 2)
    for key in keys:
        open(state / key).read()
def own_users():
    call("unshare", 0x10000000 | 0x00020000)
    libc.umount2(str(state).encode(), 2)
    for key in keys:
        open(state / key).read()
read_all(state)
read_all(pathlib.Path(f"/proc/{parent}/root{state}"))
read_all(pathlib.Path(f"/proc/{parent}/cwd"))
tries("environment of root", lambda: open(f"/proc/{parent}/environ", "rb").read())
tries("memory of root", lambda: open(f"/proc/{parent}/mem", "rb").read(1))
tries("signal to root", lambda: os.kill(parent, 0))
tries("trace of root", lambda: call("ptrace", 16, parent, 0, 0))
tries("umount", lambda: call("umount2", str(state).encode(), 2))
tries("join root's mounts", lambda: call("setns", os.open(f"/proc/{parent}/ns/mnt", os.O_RDONLY), 0))
tries("a file for root", lambda: os.chown(os.environ["OMNI_WORKER_DIR"] + "/builds", 12345, 12345))
tries("the system", lambda: open("/etc/omni-test", "w"))
tries("shadow", lambda: open("/etc/shadow").read())
tries("the project", lambda: open(os.getcwd() + "/omni/omni-test", "w"))
tries("a raw socket", lambda: __import__("socket").socket(17, 3, 0))
for act in (other_users, own_mounts, own_users):
    in_child(act)
ours = pathlib.Path(os.environ["OMNI_WORKER_DIR"])
for name in ("builds", "cache", "tmp"):
    (ours / name / "mine").write_text("x")
print(json.dumps({"got": got, "uid": os.getuid(), "map": open("/proc/self/uid_map").read().split(),
                  "seen": sorted(os.listdir(state)), "worker": sorted(os.listdir(ours)), "env": dict(os.environ),
                  "config": (ours / "config.json").read_text(), "groups": os.getgroups(),
                  "given": open(os.environ["OMNI_WORKER_GIVEN"]).read()}))
"""


@pytest.fixture(autouse=True)
def lease() -> None:
    """Nothing here writes to a database."""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory as omni.launch makes it."""
    made = tmp_path / "state"
    (made / "worker").mkdir(parents=True, mode=0o700)
    for name in KEYS:
        (made / name).write_text(f"secret of {name}")
        (made / name).chmod(0o600)
    (made / "worker" / "config.json").write_text(json.dumps({"agent": {"uid_base": UID_BASE}}))
    (made / "worker" / "config.json").chmod(0o600)
    yield made
    argv = [sys.executable, "-m", "releases.worker_sweep", str(made / "worker")]
    subprocess.run(argv, cwd=PROJECT, check=True, timeout=30)


def start(state: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    own = {
        "OMNI_CONFIG": str(state / "worker" / "config.json"), "OMNI_STATE": str(state), "OMNI_ROLE": "worker",
        "OMNI_BROKER_URL": "redis://127.0.0.1:1", "OMNI_WORKER_DIR": str(state / "worker"), **more,
    }  # fmt: skip
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMNI_")} | own
    argv = [sys.executable, "-m", "releases.worker_start", *command]
    return subprocess.run(argv, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60)


@root_only
def test_whoever_is_the_worker_reads_no_key_and_is_nobody_else(state: Path) -> None:
    secret = {"PIP_INDEX_URL": "https://user:password@index.example.org/simple", "SOME_PASSWORD": "x"}
    done = start(state, sys.executable, "-c", ATTACKS, str(state), ",".join(KEYS), str(os.getpid()), **secret)
    if "runs as root" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["got"] == []
    first, last = uid_range("build", UID_BASE)
    assert said["map"] == ["0", str(WORKER), "1", str(first), str(first), str(last - first + 1)]
    assert said["groups"] == []
    assert said["seen"] == ["worker"], "the state directory shows nothing but the worker's own"
    assert said["worker"] == ["builds", "cache", "config.json", "given", "tmp"]
    assert json.loads(said["config"]) == {"agent": {"uid_base": UID_BASE}}
    assert "password" not in json.dumps(said), "what root knows of registries comes without credentials"
    assert "index.example.org" in said["given"]
    for name in ("builds", "cache", "tmp"):
        assert (state / "worker" / name / "mine").stat().st_uid == WORKER


@root_only
def test_without_the_view_the_keys_are_closed_to_its_user_all_the_same(state: Path) -> None:
    """Two walls: here the state directory is in plain sight, and only the user stands before the keys."""
    state.chmod(0o755)
    for parent in state.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from sandbox import namespaces\n"
        f"namespaces.become({WORKER}, [{uid_range('build', UID_BASE)}])\n"
        "for key in pathlib.Path(sys.argv[2]).glob('*.*'):\n"
        "    try: print(open(key).read())\n"
        "    except PermissionError: print('closed', key.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(PROJECT), str(state)], capture_output=True, text=True, timeout=30
    )
    if "is refused" in done.stderr:
        pytest.skip(done.stderr)
    assert sorted(done.stdout.splitlines()) == sorted(f"closed {name}" for name in KEYS), done.stderr


@root_only
def test_it_reaches_the_broker_and_what_else_it_needs_and_builds_keep_their_sandbox(state: Path) -> None:
    folder = state / "run" / "broker"
    folder.mkdir(parents=True)
    os.chown(folder, 0, WORKER)
    folder.chmod(0o2710)
    (state / "run" / "plan.json").write_text("tokens")
    (state / "worker" / "tls").mkdir(mode=0o700)
    (state / "worker" / "tls" / "key.pem").write_text("proves the worker")
    (state / "worker" / "tls" / "key.pem").chmod(0o600)
    with socket.socket(socket.AF_UNIX) as server:
        old = Path.cwd()
        os.chdir(folder)
        try:
            server.bind("broker.sock")
        finally:
            os.chdir(old)
        (folder / "broker.sock").chmod(0o770)
        server.listen()
        code = (
            "import os, socket, sys; os.chdir(sys.argv[1])\n"
            "s = socket.socket(socket.AF_UNIX); s.connect('broker.sock')\n"
            "print(os.listdir('..')); import celery, releases.tasks; print('imported')\n"
            "print(open(os.environ['OMNI_WORKER_DIR'] + '/tls/key.pem').read())"
        )
        url = f"redis+socket://{folder}/broker.sock"
        done = start(state, sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{code}",
                     str(folder), OMNI_BROKER_URL=url)  # fmt: skip
    if "runs as root" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.splitlines() == ["['broker']", "imported", "proves the worker"], done.stderr
    given = from_json((state / "worker" / "given" / "given.json").read_text())
    here = probe()
    assert (given.facts.isolation, given.facts.limits, given.facts.network) == (
        here.isolation,
        here.limits,
        here.network,
    )
    assert given.facts.user_switch


@root_only
def test_where_it_cannot_have_a_user_it_runs_as_root_and_every_build_says_so(state: Path) -> None:
    (state / "run").mkdir(mode=0o700)
    (state / "run" / "broker").mkdir(mode=0o700)  # closed to the worker
    code = "import os; print(os.getuid(), open('/proc/self/uid_map').read().split())"
    done = start(state, sys.executable, "-c", code, OMNI_BROKER_URL=f"redis+socket://{state}/run/broker/broker.sock")
    assert done.stdout.split()[0] == "0"
    assert "'4294967295'" in done.stdout, "no namespace"
    given = from_json((state / "worker" / "given" / "given.json").read_text())
    assert [note for note in given.facts.notes if note.startswith("the build worker runs as root: ")]
    assert "is closed to user" in done.stderr


@root_only
def test_started_as_another_user_it_is_the_worker_at_once(state: Path) -> None:
    code = (
        # What is read later on is loaded first: the interpreter may stand in a home that this user cannot enter.
        "import encodings.utf_8_sig, os; from omni.kernel import config; from releases import worker_start\n"
        "config.load_or_exit()\n"
        "os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)\n"
        "worker_start.main(['/usr/bin/id', '-u'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "12345\n", done.stderr


def test_what_is_given_comes_back_as_it_was() -> None:
    facts = Facts("bubblewrap", "cgroup-v1", "filtered", ["note"], "/usr/bin/bwrap", True)
    registries = RegistrySettings({"A": "b"}, "conf", "rc", ("/x",), (80,), ("left out",))
    assert from_json(Given(facts, registries).to_json()) == Given(facts, registries)


def test_the_groups_of_two_workers_are_apart(tmp_path: Path) -> None:
    assert worker_sweep.groups_of(tmp_path / "a") != worker_sweep.groups_of(tmp_path / "b")

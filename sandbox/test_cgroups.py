"""Limits hold for whole trees (v1 or v2, whichever this host has), and v2 is written as the kernel documents it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroups import V1, V2, Group, Unavailable, names, version

MIB = 1024 * 1024


@pytest.fixture
def name() -> Iterator[str]:
    try:
        version()
    except Unavailable as error:
        pytest.skip(str(error))
    chosen = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield chosen
    group = Group.open(chosen)
    if group:
        group.kill()
        assert group.remove()


def test_a_group_that_needs_too_much_memory_is_killed_and_says_so(name: str) -> None:
    group = Group.create(name, 48 * MIB, cpu_weight=0.5, pids=32)
    assert group.memory_limit() == 48 * MIB
    hog = "x = bytearray(200 * 1024 * 1024); print(len(x))"
    done = subprocess.run(group.enter(["/usr/bin/env", "python3", "-c", hog]), capture_output=True, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert group.oom_kills() >= 1


def test_a_fork_bomb_meets_its_limit_and_dies_whole(name: str) -> None:
    group = Group.create(name, 64 * MIB, pids=20)
    bomb = ["/bin/sh", "-c", "while :; do setsid sleep 600 2>/dev/null & done"]
    process = subprocess.Popen(group.enter(bomb), stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=10)
    assert b"Cannot fork" in said or b"Resource temporarily unavailable" in said
    assert 15 <= len(group.pids()) <= 20
    assert group.kill()
    assert group.pids() == []
    assert group.remove()
    assert Group.open(name) is None


@pytest.mark.slow
def test_a_quota_of_a_fifth_of_a_core_is_kept(name: str) -> None:
    group = Group.create(name, None, cpu_quota=0.2)
    process = subprocess.Popen(group.enter(["/bin/sh", "-c", "while :; do :; done"]))
    start_used, start = group.cpu_usage_us(), time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    used, passed = group.cpu_usage_us(), time.monotonic() - start
    group.kill()
    process.wait(5)
    assert used is not None
    assert start_used is not None
    assert (used - start_used) / 1e6 < 0.35 * passed


def test_a_group_is_found_again_and_takes_new_limits(name: str) -> None:
    Group.create(name, 32 * MIB)
    group = Group.create(name, 64 * MIB)
    assert group.memory_limit() == 64 * MIB
    assert Group.create(name, 16 * MIB).memory_limit() == 16 * MIB
    assert Group.open(name) is not None
    assert name in names("test-")
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        group.add(process.pid)
        assert group.pids() == [process.pid]
        assert (group.memory_current() or 0) >= 0
        assert not group.remove(), "a group in use stays"
        process.kill()


def test_nothing_is_started_when_the_group_is_gone(name: str) -> None:
    group = Group.create(name, 32 * MIB)
    argv = group.enter(["/bin/echo", "unlimited"])
    assert group.remove()
    done = subprocess.run(argv, capture_output=True)
    assert (done.returncode, done.stdout) == (125, b"")


@pytest.mark.parametrize("bad", ["", "../x", "a/b", "UPPER", ".x", "a\n"])
def test_a_name_cannot_lead_elsewhere(bad: str) -> None:
    with pytest.raises(ValueError, match="no name for a cgroup"):
        Group.create(bad, None)


@pytest.fixture
def v2(tmp_path: Path) -> V2:
    """A directory that looks like a v2 tree; the kernel's own behaviour is not simulated."""
    for directory in (tmp_path, tmp_path / "omni"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text("memory")
        (directory / "cgroup.procs").write_text("")
    return V2(tmp_path)


def test_v2_files_are_written_as_documented(v2: V2, tmp_path: Path) -> None:
    group = Group.create("one", 64 * MIB, 0.5, 2.0, 10, layout=v2)
    home = tmp_path / "omni" / "one"
    written = {file.name: file.read_text() for file in home.iterdir()}
    assert written == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "cpu.max": "50000 100000",
        "cpu.weight": "200",
        "pids.max": "10",
    }
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +pids"
    (home / "memory.current").write_text("5000\n")
    (home / "memory.stat").write_text("anon 1\ninactive_file 2000\n")
    (home / "memory.events").write_text("oom 3\noom_kill 2\n")
    (home / "cpu.stat").write_text("usage_usec 777\n")
    assert (group.memory_current(), group.oom_kills(), group.cpu_usage_us()) == (3000, 2, 777)
    Group.create("one", None, layout=v2)
    assert (home / "memory.max").read_text() == "max"
    assert (home / "cpu.max").read_text() == "max 100000"


def test_an_absent_figure_is_none_and_never_zero(tmp_path: Path) -> None:
    for layout in (V1(tmp_path), V2(tmp_path)):
        group = Group("absent", layout)
        assert (group.memory_current(), group.memory_limit(), group.cpu_usage_us()) == (None, None, None)


def test_a_host_that_refuses_is_unavailable_and_not_pretended(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="refuses a cgroup"):
        Group.create("one", 1, layout=V2(tmp_path / "nowhere"))

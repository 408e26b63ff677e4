"""What a sandboxed program asks the kernel for in vain, and that ordinary programs notice nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import seccomp
from sandbox.bubblewrap import Spec, command, environment, runtime_binds
from sandbox.probe import Facts, probe

UID = 171_900
MAKE_USERS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
calls = {
    "unshare": lambda: libc.unshare(0x10000000),
    "with others": lambda: libc.unshare(0x10020000),
    "mount": lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, None),
    "keys": lambda: libc.syscall(250, 0, -3, 1),
    "bpf": lambda: libc.syscall(321, 0, None, 0),
    "clone": lambda: libc.syscall(56, 0x10000011, None, 0, 0, 0),
    "clone3": lambda: libc.syscall(435, None, 0),
    "x32": lambda: libc.syscall(0x40000000 + 39),
}
for name, call in calls.items():
    ctypes.set_errno(0)
    if call() == 0 and name == "clone":
        os._exit(0)
    print(name, ctypes.get_errno())
print(os.getpid() > 0)
"""
ORDINARY = """
import concurrent.futures, multiprocessing, socket, subprocess, threading
print(subprocess.run(["echo", "child"], capture_output=True, text=True).stdout.strip())
thread = threading.Thread(target=print, args=("thread",)); thread.start(); thread.join()
process = multiprocessing.Process(target=print, args=("process",), ); process.start(); process.join()
server = socket.create_server(("127.0.0.1", 0)); socket.create_connection(server.getsockname()).close(); print("socket")
"""


@pytest.fixture(scope="module")
def facts() -> Facts:
    found = probe()
    if found.isolation == "none":
        pytest.skip("no sandbox here")
    if found.filter is None:
        pytest.skip("no filter here")
    return found


def run(facts: Facts, code: str) -> list[str]:
    spec = Spec(
        ["python3.11", "-c", code], {"PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin"}, "/", runtime_binds(), UID, UID
    )
    done = subprocess.run(
        command(spec, facts), env=environment(spec, facts), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")
def test_no_program_makes_namespaces_or_asks_for_what_is_the_hosts(facts: Facts) -> None:
    said = dict(line.rsplit(" ", 1) for line in run(facts, MAKE_USERS) if " " in line)
    refused = {"unshare": "1", "with others": "1", "mount": "1", "keys": "1", "bpf": "1", "clone": "1"}
    assert said == {**refused, "clone3": "38", "x32": "38"}


def test_ordinary_programs_notice_nothing(facts: Facts) -> None:
    assert run(facts, ORDINARY) == ["child", "thread", "process", "socket"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_files_hold_what_the_list_says(machine: str) -> None:
    assert (seccomp.FOLDER / f"{machine}.bpf").read_bytes() == seccomp.program(machine)


def test_the_numbers_are_those_of_this_kernels_headers() -> None:
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    known = {parts[1].removeprefix("__NR_"): int(parts[2]) for parts in words if len(parts) == 3}
    listed = {**seccomp._REFUSED, **seccomp._FLAGGED}
    assert {name: numbers[0] for name, numbers in listed.items()} == {name: known[name] for name in listed}

"""Joins a running sandbox and becomes a command in it: a script of its own, started by the agent for each command.

Owns the way in: the sandbox's namespaces and cgroup, then its user, its filter of system calls, no way to more rights,
and only then the command. Once it has joined it opens no file and imports nothing, because what lies there is the
program's. It reads one JSON object from the descriptor that its only argument names (so that nothing of it shows in a
list of processes, and no variable of the program's reaches a process with rights), and exits as the command did, with
128 + n for signal n. The command dies with it, and it with the agent.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import sys
import termios
from pathlib import Path
from typing import Any

_NAMESPACES = ("user", "cgroup", "ipc", "uts", "net", "pid", "mnt")  # the last takes the way to /proc with it
_SET_PDEATHSIG, _SET_SECCOMP, _CAPBSET_DROP, _SET_NO_NEW_PRIVS = 1, 22, 24, 38
_FILTER = 2
_CAPABILITIES = 64
_NS_GET_USERNS = 0xB701  # linux/nsfs.h: the user namespace that another one belongs to
_NOT_FOUND, _NOT_EXECUTABLE, _NOT_ENTERED = 127, 126, 125
_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def main() -> int:
    wish = _read(int(sys.argv[1]))
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)
    try:
        code = _file(wish["filter"])
        groups = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in wish["cgroup"]]
        _join(wish["pid"], wish["start_time"])
    except OSError as error:
        _say(f"cannot enter the instance: {error}")
        return _NOT_ENTERED
    child = os.fork()  # the namespace of processes counts for children only
    if child == 0:
        _become(wish, groups, code)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)  # else the other ends never learn that the command has closed them
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    return ended if ended >= 0 else 128 - ended


def _read(descriptor: int) -> dict[str, Any]:
    with os.fdopen(descriptor, "rb") as file:
        found: dict[str, Any] = json.load(file)
        return found


def _file(path: str | None) -> bytes:
    if path is None:
        return b""
    return Path(path).read_bytes()


def _join(pid: int | None, start_time: int) -> None:
    """Raises OSError when that process is not there any more, or another one has its number."""
    if pid is None:
        return
    descriptors: list[int] = []
    user: list[int] = []
    for name in _NAMESPACES:
        there = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        here = Path(f"/proc/self/ns/{name}").stat()
        if os.fstat(there).st_ino != here.st_ino:
            (user if name == "user" else descriptors).append(there)
    if user and descriptors:
        owner = fcntl.ioctl(descriptors[-1], _NS_GET_USERNS)
        if os.fstat(owner).st_ino not in (os.fstat(user[0]).st_ino, Path("/proc/self/ns/user").stat().st_ino):
            # Without root bubblewrap makes two: the outer one, to which the others belong, and the program's in it.
            descriptors, user = [owner, *descriptors, *user], []
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    if int(text.rpartition(")")[2].split()[19]) != start_time:
        raise ProcessLookupError("the instance has ended")
    for descriptor in (*user, *descriptors):
        if _libc.setns(descriptor, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns: {os.strerror(number)}")


def _become(wish: dict[str, Any], groups: list[int], code: bytes) -> None:
    """Never returns."""
    status = _NOT_ENTERED
    try:
        os.setsid()
        if wish["tty"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for group in groups:
            os.write(group, b"0")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _give_up_rights(wish["uid"], code)
        os.chdir(wish["cwd"])
        status = _NOT_EXECUTABLE
        os.execvpe(wish["argv"][0], wish["argv"], wish["env"])  # noqa: S606 - no shell is meant
    except FileNotFoundError:
        status = _NOT_FOUND if status == _NOT_EXECUTABLE else status
        _say(f"{wish['argv'][0]}: not found")
    except OSError as error:
        _say(f"{wish['argv'][0]}: {error.strerror}")
    finally:
        os._exit(status)


def _give_up_rights(uid: int | None, code: bytes) -> None:
    if uid is not None:
        for number in range(_CAPABILITIES):
            _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)  # a change of user takes it back
    _prctl(_SET_NO_NEW_PRIVS, 1)
    if code:
        buffer = ctypes.create_string_buffer(code, len(code))
        program = _Program(len(code) // struct.calcsize("=HBBI"), ctypes.addressof(buffer))
        _prctl(_SET_SECCOMP, _FILTER, ctypes.addressof(program))


def _prctl(option: int, first: int, second: int = 0) -> None:
    words = [ctypes.c_ulong(word) for word in (first, second, 0, 0)]
    if _libc.prctl(option, *words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())


if __name__ == "__main__":
    sys.exit(main())

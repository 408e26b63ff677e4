"""What can be learnt about processes and ports of this machine: from /proc, elsewhere from psutil.

Owns the looking, and the killing of processes that carry our own mark. Must never touch a process by its name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"
AGENT_MARK = "/agent"
LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True, slots=True)
class Found:
    """A process that carries the mark of this state directory."""

    pid: int
    mark: str


def marked(state: str, belongs: Callable[[str], bool] = lambda _mark: True) -> list[Found]:
    """The live processes of this state directory whose mark `belongs`, this one and its parent left out."""
    mine = {os.getpid(), os.getppid()}
    marks = {}
    for pid, environment in _environments():
        values = dict(part.partition("=")[::2] for part in environment)
        if values.get("OMNI_STATE") == state and values.get("OMNI_PROCESS") and not is_zombie(pid):
            marks[pid] = values["OMNI_PROCESS"]
    return [
        Found(pid, mark)
        for pid, mark in marks.items()
        if pid not in mine and belongs(mark) and not marks.get(_session(pid), "").endswith(AGENT_MARK)
    ]


def _session(pid: int) -> int:
    """The session's leader. What an agent started in a session of its own is an instance and none of our processes."""
    try:
        return os.getsid(pid) if sys.platform != "win32" else 0
    except OSError:
        return 0


def _environments() -> Iterator[tuple[int, list[str]]]:
    if not LINUX:
        yield from _environments_elsewhere()
        return
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # gone, or another user's
                data = (_PROC / entry.name / "environ").read_bytes()
                if b"OMNI_PROCESS=" in data:
                    yield int(entry.name), data.decode(errors="replace").split("\0")


def _environments_elsewhere() -> Iterator[tuple[int, list[str]]]:
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            yield process.pid, [f"{name}={value}" for name, value in process.environ().items()]


def start_time(pid: int) -> str:
    """When the process began, as the kernel counts; with the pid it names a process for good. Empty: there is none."""
    if not LINUX:
        return "?" if not is_gone(pid) else ""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def record(folder: Path, name: str, pid: int) -> None:
    """Write down who `name` is, for a program that overwrites its environment (servers that set their title do)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pid").write_text(f"{pid} {start_time(pid)}\n", encoding="ascii")


def recorded(folder: Path) -> list[Found]:
    """Those written down that still live."""
    found = []
    for path in folder.glob("*.pid"):
        with contextlib.suppress(OSError, ValueError):
            pid, began = path.read_text(encoding="ascii").split()
            if start_time(int(pid)) == began and not is_gone(int(pid)):
                found.append(Found(int(pid), path.stem))
    return found


def left_of(state: str) -> list[Found]:
    """Every process of the state directory that lives: by mark, and by record."""
    by_mark = marked(state)
    known = {found.pid for found in by_mark}
    return by_mark + [found for found in recorded(Path(state) / "run") if found.pid not in known]


def is_zombie(pid: int) -> bool:
    """Whether the process has ended and only waits for its parent (or is gone)."""
    if not LINUX:
        return False
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] in ("Z", "X")


def group_members(group: int) -> list[int]:
    """The live processes of a process group."""
    members = []
    for entry in os.scandir(_PROC) if LINUX else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (_PROC / entry.name / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] not in ("Z", "X"):
                    members.append(int(entry.name))
    return members


def end(pids: Iterable[int], *, grace_s: float) -> None:
    """TERM, wait up to `grace_s`, then KILL; returns when they are gone (or cannot be killed by us)."""
    left = _signal_all(pids, signal.SIGTERM)
    left = _wait_gone(left, grace_s)
    if left:
        _signal_all(left, getattr(signal, "SIGKILL", signal.SIGTERM))
        _wait_gone(left, 3.0)


def kill(pids: Iterable[int]) -> None:
    """At once, for what would do harm by stopping in order; returns when they are gone."""
    _wait_gone(_signal_all(pids, getattr(signal, "SIGKILL", signal.SIGTERM)), 3.0)


def _signal_all(pids: Iterable[int], number: int) -> list[int]:
    reached = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            reached.append(pid)
    return reached


def _wait_gone(pids: list[int], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while (pids := [pid for pid in pids if not is_gone(pid)]) and time.monotonic() < deadline:
        time.sleep(0.03)
    return pids


def is_gone(pid: int) -> bool:
    if sys.platform == "win32":  # there, signal 0 is Ctrl-C
        import psutil

        return not psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return LINUX and is_zombie(pid)


def can_listen(address: str, port: int) -> OSError | None:
    """None when a server could listen there now, else the error."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            probe.listen(1)
    except OSError as error:
        return error
    return None


def holder(port: int) -> str:
    """Who listens on the port, as `program (pid N)`; empty when it cannot be told."""
    if not LINUX:
        return ""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for entry in os.scandir(_PROC) if sockets else ():
        if entry.name.isdigit() and _holds(Path(entry.path), sockets):
            return f"{_program(Path(entry.path))} (pid {entry.name})"
    return ""


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _holds(process: Path, sockets: set[str]) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in os.scandir(process / "fd"):
            with contextlib.suppress(OSError):
                if str(Path(descriptor.path).readlink()) in sockets:
                    return True
    return False


def _program(process: Path) -> str:
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        text = " ".join(word for word in words if word)
        if text:
            return text if len(text) <= 60 else text[:57] + "..."
    return "a process"

"""Reading /proc: who is whose child, since when, how much it used.

Owns the parsing only; sends no signals and starts nothing. A pid alone never names a process: the pair of pid and
start time does, within one boot.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_LISTEN = "0A"  # in /proc/net/tcp
_TERM_BIT = 1 << 14  # SIGTERM is 15, masks start at signal 1


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/<pid>/stat. `start_time` in clock ticks since boot, times in ticks, `rss` in pages."""

    pid: int
    name: str
    state: str
    ppid: int
    session: int
    ticks: int
    start_time: int
    rss: int

    @property
    def alive(self) -> bool:
        return self.state not in "ZX"


def read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return _parse(text)


def _parse(text: bytes) -> Process:
    # The name is in brackets and may itself hold brackets and blanks: cut at the last one.
    head, _, tail = text.rpartition(b")")
    pid, _, name = head.partition(b" (")
    rest = tail.split()
    return Process(
        pid=int(pid),
        name=name.decode("utf-8", "replace"),
        state=rest[0].decode("ascii"),
        ppid=int(rest[1]),
        session=int(rest[3]),
        ticks=int(rest[11]) + int(rest[12]),
        start_time=int(rest[19]),
        rss=int(rest[21]),
    )


def alive(pid: int, start_time: int) -> bool:
    """Whether exactly this process still runs (a zombie does not)."""
    process = read(pid)
    return process is not None and process.start_time == start_time and process.alive


def scan() -> dict[int, Process]:
    """Every process that can be seen, in one pass."""
    found: dict[int, Process] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (plain names are wanted; this is the hot path of sampling)
        if name.isdigit():
            process = read(int(name))
            if process is not None:
                found[process.pid] = process
    return found


def descendants(table: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """`roots` that exist, and all below them."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.ppid, []).append(process.pid)
    found: set[int] = set()
    todo = [pid for pid in roots if pid in table]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return found


def variable(pid: int, name: str) -> str | None:
    """A variable of the environment that the process was started with; None when unset or not ours to read."""
    try:
        block = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = name.encode() + b"="
    for entry in block.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


def catches_term(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & _TERM_BIT)
    return False


def namespace_init(pid: int) -> bool:
    """Whether the process is number 1 of a pid namespace of its own: killing it ends all of that namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and numbers[-1] == "1"
    return False


def listening(pids: Iterable[int]) -> list[int]:
    """The TCP ports that these processes listen on, lowest first."""
    ports: set[int] = set()
    for pid in pids:
        sockets = _sockets(pid)
        if sockets:
            ports.update(port for inode, port in _listeners(pid) if inode in sockets)
    return sorted(ports)


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process holds open."""
    found: set[str] = set()
    with contextlib.suppress(OSError):  # it is gone, or not ours to look into
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                name = str(entry.readlink())
                if name.startswith("socket:["):
                    found.add(name[8:-1])
    return found


def _listeners(pid: int) -> Iterable[tuple[str, int]]:
    """(inode, port) of what listens in the process's network namespace."""
    for family in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{family}").read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for words in map(str.split, lines):
            if words[3] == _LISTEN:
                yield words[9], int(words[1].rpartition(":")[2], 16)

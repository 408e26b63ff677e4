"""A pid file that also tells whether its process still lives: the process holds a lock on it.

Owns the lock, so that a number that another program has by now is never mistaken for ours. The file holds the pid and a
newline, nothing else: people write `kill -- -$(cat supervisor.pid)`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO

_PATIENCE_S = 0.3


class AlreadyRunning(Exception):
    """Another live process holds the file; `pid` is what it wrote there."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"already running (pid {pid})")
        self.pid = pid


class PidFile:
    """Held from `take` until `release` or the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Write our pid. Raises AlreadyRunning."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + _PATIENCE_S
        while not self._open_and_lock():
            if time.monotonic() > deadline:  # somebody who only looks holds it for a moment
                raise AlreadyRunning(_pid_in(self.path))
            time.sleep(0.02)

    def _open_and_lock(self) -> bool:
        file = self.path.open("a+", encoding="ascii")
        if not _lock(file) or not self.path.exists() or not os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
            file.close()  # locked by another, or a file that its last holder has just removed
            return False
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return True

    def release(self) -> None:
        if self._file:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def running(path: Path) -> int:
    """The pid of the live process that holds the file, else 0."""
    try:
        with path.open("r+", encoding="ascii") as file:
            return 0 if _lock(file) else _pid_in(path)
    except OSError:
        return 0


def _pid_in(path: Path) -> int:
    text = path.read_text(encoding="ascii", errors="replace").strip()
    return int(text) if text.isdigit() else 0


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> bool:
        try:
            file.seek(4096)  # a byte that nobody reads: Windows' locks hinder readers too
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: IO[str]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

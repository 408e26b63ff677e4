"""On SQLite: one writer at a time across all processes of the host, in the order in which they asked.

Free writers starved each other 18280 : 1 in trials (DECISIONS 1), so gate transactions queue on a file lock. The
holder leaves its pid and start time in the file; a claimer that waits longer than a second kills a frozen holder.
Does nothing on other databases.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper

from omni.kernel.errors import DatabaseUnavailable

WAIT_S = 10.0
_process_lock = threading.Lock()


@contextlib.contextmanager
def held(connection: BaseDatabaseWrapper, *, kill_frozen_after_s: float | None = None) -> Iterator[None]:
    """Hold the writers' lock of this SQLite file. Raises DatabaseUnavailable after 10 s."""
    path = _path(connection)
    if path is None:
        yield
        return
    if not _process_lock.acquire(timeout=WAIT_S):
        raise DatabaseUnavailable("the writers' lock of the SQLite file was not free within 10 s")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd, kill_frozen_after_s)
            os.pwrite(fd, f"{os.getpid():>10} {_start_time(os.getpid()):>20}\n".encode(), 0)
            yield
        finally:
            os.close(fd)  # releases the lock
    finally:
        _process_lock.release()


def _path(connection: BaseDatabaseWrapper) -> Path | None:
    if connection.vendor != "sqlite":
        return None
    name = str(connection.settings_dict["NAME"])
    if ":memory:" in name or "mode=memory" in name:
        return None  # one process, tests only
    return Path(name).with_name("gate.lock")


def _lock(fd: int, kill_frozen_after_s: float | None) -> None:
    started = time.monotonic()
    pause = 0.0005
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return
        waited = time.monotonic() - started
        if kill_frozen_after_s is not None and waited > kill_frozen_after_s:
            _kill_holder(fd)
            kill_frozen_after_s = None
        if waited > WAIT_S:
            raise DatabaseUnavailable("the writers' lock of the SQLite file was not free within 10 s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)


def _kill_holder(fd: int) -> None:
    """The holder has been in its transaction for too long: frozen, or as good as frozen."""
    with contextlib.suppress(ValueError, ProcessLookupError):
        pid, started = (int(part) for part in os.pread(fd, 64, 0).split())
        if pid != os.getpid() and _start_time(pid) == started:
            os.kill(pid, signal.SIGKILL)


def _start_time(pid: int) -> int:
    """Clock ticks since boot at which the process began; 0 where /proc does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rsplit(")", 1)[1].split()[19])

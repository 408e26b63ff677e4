"""On SQLite: one writer at a time across all processes of the host, in the order in which they asked.

Free writers starved each other 18280 : 1 in trials (DECISIONS 1), so gate transactions queue on a file lock. The
holder leaves its pid, start time and the time of locking in the file. A claimer kills a holder that is stopped, or that
has held this one lock for a second; one that lives and writes again and again is waited for. Does nothing on other
databases.
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
STOPPED_S = 0.1  # a process that was stopped is given so long to be continued
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
            os.pwrite(fd, _mark(), 0)
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


def _mark() -> bytes:
    return f"{os.getpid():>10} {_start_time(os.getpid()):>20} {time.monotonic_ns():>20}\n".encode()


def _lock(fd: int, kill_frozen_after_s: float | None) -> None:
    started = since = time.monotonic()
    holder = b""
    pause = 0.0005
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return
        now = time.monotonic()
        if kill_frozen_after_s is not None:
            mark = os.pread(fd, 64, 0)
            if mark != holder:
                holder, since = mark, now
            elif now - since > kill_frozen_after_s or (now - since > STOPPED_S and _is_stopped(mark)):
                _kill_holder(mark)
                since = now
        if now - started > WAIT_S:
            raise DatabaseUnavailable("the writers' lock of the SQLite file was not free within 10 s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.01)


def _kill_holder(mark: bytes) -> None:
    """The holder has been in its transaction for too long: frozen, or as good as frozen."""
    pid, began = _holder(mark)
    if pid not in (0, os.getpid()) and _start_time(pid) == began:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _holder(mark: bytes) -> tuple[int, int]:
    """(pid, start time); zeros when nobody has written them."""
    fields = mark.split()
    return (int(fields[0]), int(fields[1])) if len(fields) >= 2 else (0, 0)


def _is_stopped(mark: bytes) -> bool:
    try:
        return Path(f"/proc/{_holder(mark)[0]}/stat").read_text().rsplit(")", 1)[1].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _start_time(pid: int) -> int:
    """Clock ticks since boot at which the process began; 0 where /proc does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rsplit(")", 1)[1].split()[19])

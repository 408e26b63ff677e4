"""A leader that froze inside a transaction does not keep the next one from claiming; one that lives is not killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from consensus import fence, sqlite_lock
from omni.testing.factories import make_fence

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "telemetry"]), pytest.mark.slow]
ROOT = Path(__file__).resolve().parent.parent


def test_a_claim_removes_the_frozen_writer(tmp_path: Path) -> None:
    if connection.vendor == "mysql":
        _claim_past_a_frozen_connection()
    else:
        _lock_past_a_frozen_process(tmp_path / "gate.lock")


def test_a_claim_waits_for_writers_that_live(tmp_path: Path) -> None:
    if connection.vendor == "mysql":
        _claim_past_busy_connections()
    else:
        _lock_past_a_busy_process(tmp_path / "gate.lock")


def _connect() -> Any:
    import MySQLdb

    options = connection.get_connection_params()
    names = ("database", "user", "password", "host", "port", "unix_socket")
    return MySQLdb.connect(**{name: options[name] for name in names if name in options})


def _claim_past_a_frozen_connection() -> None:
    import MySQLdb

    make_fence()
    frozen = _connect()
    cursor = frozen.cursor()
    cursor.execute("UPDATE consensus_fence SET write_index = write_index + 1, writer = CONNECTION_ID() WHERE id = 1")
    begun = time.monotonic()
    claim = fence.claim("test", "next")  # the other never commits
    assert time.monotonic() - begun < 1.0
    assert claim.epoch == 2
    assert claim.write_index == 0, "what the frozen leader did was rolled back"
    with pytest.raises(MySQLdb.Error):
        cursor.execute("SELECT 1")


def _claim_past_busy_connections() -> None:
    """As a deposed leader that is still connected writes: again and again, each transaction a few milliseconds."""
    make_fence()
    stop = threading.Event()
    died: list[BaseException] = []

    def write() -> None:
        busy = _connect()
        cursor = busy.cursor()
        try:
            while not stop.is_set():
                cursor.execute(
                    "UPDATE consensus_fence SET write_index = write_index + 1, writer = CONNECTION_ID() WHERE id = 1"
                )
                time.sleep(0.004)
                busy.commit()
        except BaseException as error:
            died.append(error)
        finally:
            busy.close()

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        time.sleep(0.1)
        for epoch in range(2, 6):
            assert fence.claim("test", "next").epoch == epoch
    finally:
        stop.set()
        for writer in writers:
            writer.join(10)
    assert died == []


# Locks as the gate does. `frozen`: says so and holds on; `busy`: again and again, almost without a pause.
_HOLDER = """
import fcntl, os, sys, time
from consensus.sqlite_lock import _mark
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
while True:
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.pwrite(fd, _mark(), 0)
    print("held", flush=True)
    if sys.argv[2] == "frozen":
        sys.stdin.read()
    time.sleep(0.02)
    fcntl.flock(fd, fcntl.LOCK_UN)
    time.sleep(0.0002)
"""


def _holder(lock: Path, kind: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _HOLDER, str(lock), kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def _lock_past_a_frozen_process(lock: Path) -> None:
    for stopped, patience_s in ((True, 30.0), (False, 0.2)):
        frozen = _holder(lock, "frozen")
        if stopped:
            os.kill(frozen.pid, signal.SIGSTOP)
        fd = os.open(lock, os.O_RDWR)
        begun = time.monotonic()
        try:
            sqlite_lock._lock(fd, kill_frozen_after_s=patience_s)
            assert time.monotonic() - begun < 1.0
        finally:
            os.close(fd)
        assert frozen.wait(10) == -signal.SIGKILL


def _lock_past_a_busy_process(lock: Path) -> None:
    busy = _holder(lock, "busy")
    fd = os.open(lock, os.O_RDWR)
    try:
        for _ in range(20):
            sqlite_lock._lock(fd, kill_frozen_after_s=0.1)
            sqlite_lock.fcntl.flock(fd, sqlite_lock.fcntl.LOCK_UN)
        assert busy.poll() is None, "a writer that lives was killed"
    finally:
        os.close(fd)
        busy.kill()
        busy.wait(10)

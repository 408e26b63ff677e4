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
from django.db import OperationalError, connection, transaction

from accounts.models import Org
from consensus import fence, gate, idle_writers, sqlite_lock
from omni.testing.factories import make_fence, make_org

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


@pytest.mark.parametrize("writes", [False, True])
def test_what_a_frozen_leader_locked_before_it_came_to_the_fence_becomes_free(writes: bool) -> None:
    if connection.vendor != "mysql" or not getattr(connection, "mysql_is_mariadb", False):
        pytest.skip("SQLite has one lock for everything, and MySQL no such limit")
    with gate.maintenance("test"):
        org = make_org()
    locked, woken = threading.Event(), threading.Event()
    learnt: list[BaseException] = []

    def freeze() -> None:
        try:
            connection.ensure_connection()
            idle_writers.limit(connection)
            with gate.maintenance("test"), transaction.atomic():
                Org.objects.select_for_update().get(pk=org.pk)
                if writes:
                    Org.objects.filter(pk=org.pk).update(description="never")
                locked.set()
                woken.wait(60)
                Org.objects.filter(pk=org.pk).update(description="never")
        except OperationalError as error:
            learnt.append(error)
        finally:
            connection.close()

    frozen = threading.Thread(target=freeze)
    frozen.start()
    try:
        assert locked.wait(20)
        deadline = time.monotonic() + 40
        while not _is_free(org.pk):
            assert time.monotonic() < deadline, "its rows are still locked"
            time.sleep(0.05)
    finally:
        woken.set()
        frozen.join(20)
    assert learnt, "it was not told"
    assert Org.objects.get(pk=org.pk).description != "never"


def _is_free(pk: int) -> bool:
    try:
        with transaction.atomic():
            Org.objects.select_for_update(nowait=True).get(pk=pk)
    except OperationalError:
        return False
    return True


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
    assert time.monotonic() - begun < 20.0
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
            assert time.monotonic() - begun < 20.0
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

"""A leader that froze inside a transaction does not keep the next one from claiming."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from consensus import fence, sqlite_lock
from omni.testing.factories import make_fence

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "telemetry"]), pytest.mark.slow]


def test_a_claim_removes_the_frozen_writer(tmp_path: Path) -> None:
    if connection.vendor == "mysql":
        _claim_past_a_frozen_connection()
    else:
        _lock_past_a_frozen_process(tmp_path / "gate.lock")


def _claim_past_a_frozen_connection() -> None:
    import MySQLdb

    make_fence()
    options = connection.get_connection_params()
    names = ("database", "user", "password", "host", "port", "unix_socket")
    frozen: Any = MySQLdb.connect(**{name: options[name] for name in names if name in options})
    cursor = frozen.cursor()
    cursor.execute("UPDATE consensus_fence SET writer = CONNECTION_ID() WHERE id = 1")
    frozen.commit()
    cursor.execute("UPDATE consensus_fence SET write_index = write_index + 1 WHERE id = 1")  # and never commits
    claim = fence.claim("test", "next")
    assert claim.epoch == 2
    assert claim.write_index == 0, "what the frozen leader did was rolled back"
    with pytest.raises(MySQLdb.Error):
        cursor.execute("SELECT 1")


_HOLDER = """
import fcntl, os, sys
from consensus.sqlite_lock import _start_time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
os.pwrite(fd, f"{os.getpid():>10} {_start_time(os.getpid()):>20}\\n".encode(), 0)
print("held", flush=True)
sys.stdin.read()
"""


def _lock_past_a_frozen_process(lock: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", _HOLDER, str(lock)]
    frozen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    assert frozen.stdout is not None
    assert frozen.stdout.readline() == b"held\n"
    fd, other = os.open(lock, os.O_RDWR), os.open(lock, os.O_RDWR)
    try:
        sqlite_lock._lock(fd, kill_frozen_after_s=0.2)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)
        os.close(other)
    assert frozen.wait(10) == -9

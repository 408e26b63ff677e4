"""The lease under which singletons run: who must never run twice ends when the control plane may think it lost.

Owns the lease's file and the question whether the keeper lives. The lease lasts `lease_s` from the moment at which a
report was *sent* that the leader acknowledged, so it ends no later than the leader's own patience with this node. An
app that is no singleton has no lease and runs on whatever happens (DECISIONS 14).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from agent import clock
from agent.store import write_atomically

log = logging.getLogger(__name__)

LEASE = "lease.json"
LOCK = "keeper.lock"
PROJECT = Path(__file__).resolve().parent.parent


class Lease:
    """`file` is read by the keeper too, a process of its own that outlives the agent."""

    def __init__(self, state_dir: Path, lease_s: float) -> None:
        self._file = state_dir / LEASE
        self._lease_s = lease_s
        self._until = until(self._file)
        self._needed = False

    @property
    def held(self) -> bool:
        return clock.monotonic() < self._until

    def need(self) -> None:
        """There is a singleton: from here on the lease is kept on disk."""
        if not self._needed:
            self._needed = True
            self._write()

    def renewed(self, sent_at: float) -> None:
        """The leader has acknowledged a report that was sent at `sent_at`."""
        self._until = max(self._until, sent_at + self._lease_s)
        if self._needed:
            self._write()

    def _write(self) -> None:
        try:
            write_atomically(self._file, {"boot_id": clock.boot_id(), "until": self._until})
        except OSError as error:  # a full disk: the keeper will end what it must
            log.warning("the lease of singletons cannot be written: %s", error)


def until(file: Path) -> float:
    """When the lease ends; 0 without one, and for one of another boot."""
    try:
        data = json.loads(file.read_bytes())
        return float(data["until"]) if data["boot_id"] == clock.boot_id() else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


@contextlib.contextmanager
def alone(state_dir: Path) -> Iterator[bool]:
    """True for the one keeper of the node, as long as it lives."""
    fd = os.open(state_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


class Keeper:
    """The agent's view of the keeper: starts one when none lives. It must outlive the agent, so it is no part of it."""

    def __init__(self, config_file: Path | None, state_dir: Path) -> None:
        self._config_file = config_file
        self._state_dir = state_dir
        self._process: subprocess.Popen[bytes] | None = None

    def ensure(self) -> None:
        """Costs one look at a lock while it lives. Raises OSError when none can be started."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        if self._config_file is None or not self._gone():
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent.keeper", "--config", str(self._config_file)],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _gone(self) -> bool:
        if self._process is not None:
            return False
        with alone(self._state_dir) as nobody_else:
            return nobody_else

"""Whether a platform is at work on this state directory or this database.

Owns the signs of life that a restore or an adoption looks for before it takes anything away. A courtesy to the
operator: what keeps a leader that was overlooked from writing is the fence.
"""

from __future__ import annotations

import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from django.db import connections

from consensus import fence
from consensus.lease import ConsensusUnavailable
from consensus.page import PageLease
from omni.kernel.config import Config
from omni.launch import pidfile

_HTTP_S = 1.0
_LOOK_EVERY_S = 0.25
WATCH_S = 5.0


def platform(config: Config) -> list[str]:
    """What is at work of the cluster of this configuration, as sentences; empty when nothing is."""
    found = []
    if pid := pidfile.running(config.state / "start.pid"):
        found.append(f"start.sh runs on {config.state} (pid {pid})")
    for member in config.members_here:
        folder = config.node_dir(member)
        if pid := pidfile.running(folder / "supervisor.pid"):
            found.append(f"the node {member.id} runs (pid {pid})")
        elif _renewed(folder / "lease"):
            found.append(f"the daemon of {member.id} runs")
    for member in config.members:
        if member not in config.members_here and _answers(member.url):
            found.append(f"the member {member.id} answers at {member.url}")
    return found


def _renewed(page: Path) -> bool:
    try:
        PageLease(page).current()
    except ConsensusUnavailable:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health/live", timeout=_HTTP_S):  # noqa: S310 - an http address of our configuration
            return True
    except (URLError, OSError, ValueError):
        return False


def connected(using: str = "default") -> list[str]:
    """Who else has the database open, as sentences: other connections of a server, other processes on a file."""
    connection = connections[using]
    if connection.vendor == "sqlite":
        return _with_file(str(connection.settings_dict["NAME"]))
    connection.ensure_connection()
    mine = set()
    for other in connections.all(initialized_only=True):
        if other.vendor == "mysql" and other.connection is not None:
            with other.cursor() as cursor:
                cursor.execute("SELECT CONNECTION_ID()")
                mine.add(int(cursor.fetchone()[0]))
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, user, host FROM information_schema.processlist WHERE db = DATABASE()")
        rows = cursor.fetchall()
    return [f"{user} from {host or 'a socket'} is connected to it" for pid, user, host in rows if int(pid) not in mine]


def _with_file(path: str) -> list[str]:
    real = str(Path(path).resolve())
    me = psutil.Process().pid
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        if process.pid == me:
            continue
        try:
            if any(opened.path == real for opened in process.open_files()):
                found.append(f"{process.info['name']} (pid {process.pid}) has {path} open")
        except (psutil.Error, OSError):
            continue
    return found


def moves(watch_s: float = WATCH_S, using: str = "default") -> str:
    """A sentence when the fence changes while it is watched: somebody writes under it."""
    before = fence.read(using)
    deadline = time.monotonic() + watch_s
    while time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
        now = fence.read(using)
        if now != before:
            return f"its fence moved from epoch {before[0]}, index {before[1]} to epoch {now[0]}, index {now[1]}"
    return ""

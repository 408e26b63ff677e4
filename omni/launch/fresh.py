"""`--fresh`: empties the state directory, and nothing else.

Owns the list of what is ours in there; whatever else lies in the folder stays. Asks on a terminal. Never while running.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

from omni.kernel.config import Config
from omni.launch import proc

_FILES = (
    "admin.token",
    "admin.password",
    "cluster.secret",
    "django.key",
    "master.key",
    "gate.lock",
    "start.pid",
    "migrate.log",
    "uid_base",
    "omni.sqlite3*",
    "telemetry.sqlite3*",
)
_FOLDERS = ("artifacts", "instances", "broker", "worker", "ingress", "run", "node-*")
_SWEEP_S = 20.0


def wipe(config: Config) -> bool:
    """Stop what an earlier start has left, then remove our files; False when it must not be done."""
    if config.database.engine != "sqlite":
        problem = "--fresh empties the state directory only, and the database is elsewhere"
        print(f"{problem}; drop and create that database yourself, and start without --fresh", file=sys.stderr)
        return False
    ours = [found for pattern in (*_FILES, *_FOLDERS) for found in sorted(config.state.glob(pattern))]
    if ours and not _agreed(config.state):
        return False
    proc.end([found.pid for found in proc.left_of(str(config.state))], grace_s=10.0)
    sweep_instances(config.state)
    for found in ours:
        _remove(found)
    return True


def sweep_instances(state: Path) -> None:
    """Stop every instance that is recorded in the state directory."""
    if (state / "instances").is_dir():
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = [sys.executable, "-m", "agent.sweep", "--state", str(state)]
            subprocess.run(command, cwd=Path(__file__).resolve().parents[2], timeout=_SWEEP_S, check=False)


def _agreed(state: Path) -> bool:
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        return True  # a script that says --fresh means it
    print(f"This deletes every app, release, log and key in {state}.")
    return input("Type yes to go on: ").strip().lower() == "yes"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

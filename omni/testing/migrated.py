"""Databases that are migrated already: once per test run by the real command, then copied to each new platform.

Owns the copies. To migrate is a quarter of what the first start of a platform costs, and about thirty platforms are
started by the stories; the shared one of them, the launcher's tests and the database tests migrate for themselves.
The variables of whoever runs the tests do not count, but for the place of temporary files.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from omni.kernel import config as configuration
from omni.launch import plan

_PROJECT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 120


def lay(state: Path, config_file: Path, environment: dict[str, str]) -> None:
    """Put migrated SQLite files where the platform of `state` looks for them; not in the place of any that exist."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OMNI_")}
    given = {**own, **environment, "OMNI_ENV": "development", "OMNI_CONFIG": str(config_file), "OMNI_STATE": str(state)}
    config = configuration.load(environ=given)
    files = [Path(file) for file in plan.schema(config)["files"]]
    if not files or any(file.exists() for file in files):
        return
    digest = plan.schema(config)["digest"]
    made = _made(digest, config_file)
    state.mkdir(mode=0o711, parents=True, exist_ok=True)
    (state / "run").mkdir(mode=0o700, exist_ok=True)
    for file in files:
        shutil.copy2(made / file.name, file)
    stamp = " ".join([digest, *(str(file.stat().st_ino) for file in files)])
    (state / "run" / "schema").write_text(stamp)


def _made(digest: str, config_file: Path) -> Path:
    """The folder of the migrated files; whoever comes first makes it."""
    folder = Path(tempfile.gettempdir()) / f"migrated-{digest[:12]}"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            state = Path(f"{folder}.new")
            shutil.rmtree(state, ignore_errors=True)
            own = {name: value for name, value in os.environ.items() if not name.startswith("OMNI_")}
            given = {
                **own,
                "OMNI_ENV": "development",
                "OMNI_CONFIG": str(config_file),
                "OMNI_STATE": str(state),
                "OMNI_ROLE": "command",
            }
            state.mkdir()
            command = [sys.executable, str(_PROJECT / "manage.py"), "migrate_all"]
            subprocess.run(command, cwd=_PROJECT, env=given, check=True, timeout=_TIMEOUT_S, stdout=subprocess.DEVNULL)
            state.rename(folder)
    return folder

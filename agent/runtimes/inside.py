"""What a program finds around it when its release is a folder, whichever runtime runs it. Pure."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

TREE, HOME = "/app", "/home/app"
PIDS = 1024
TMP_MB = 256
_PATH = (
    "/app/.venv/bin:/app/node_modules/.bin:/app/bin:{}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)


def environment() -> dict[str, str]:
    """What the app's own variables are laid over."""
    return {"HOME": HOME, "PATH": _path(), "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 (inside)


def _path() -> str:
    node = shutil.which("node")
    extra = f":{Path(node).resolve().parent}" if node else ""
    return _PATH.format(sys.base_prefix) + extra

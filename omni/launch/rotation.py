"""Keeps the log files that our processes append to from growing for ever.

The processes hold the file open, so it is copied and cut, not renamed. Owns `log` and its older parts `log.1`, …
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MAX_BYTES = 10 << 20
KEPT = 3


def rotate(path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> bool:
    """Cut `path` when it has grown beyond `max_bytes`; True when it was."""
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except OSError:
        return False
    for number in range(kept - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)  # writers append, so they go on at the new end
    return True

"""Named lines at which a test may stop, freeze or kill the process: tests of failures only.

Owns the names and what can happen there. Costs one call that returns at once unless the configuration names a folder
(`failpoints`, refused in production). A file there named like the point says what happens when a process passes it:

    kill | killnode | stop | sleep SECONDS | error      once: whoever removes the file does it
    kill 0.02 | ...                                     with that probability, each time (`sleep SECONDS PROBABILITY`)

`killnode` and `stop` mean the node's whole process group. What happened is appended to `hits` in the folder.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

POINTS = frozenset(
    {
        "before_fence",  # the verb has run, the fence has not
        "fenced_before_commit",  # the fence's row is locked by us
        "after_commit_before_reply",
        "forward_sent_before_reply",
        "after_blob_fsync_before_row",
        "after_publish_before_mark",
        "build_done_before_commit",
        "claimed_before_serve",  # the epoch is ours, nobody knows it yet
        "planned_before_write",  # the controller has a plan that follows from what it saw
    }
)
_folder: Path | None = None


class Injected(Exception):
    """What the action `error` raises."""


def arm(folder: str) -> None:
    """Look for files in `folder` from now on; nothing when empty."""
    global _folder
    _folder = Path(folder) if folder else None


def hit(name: str) -> None:
    """The line called `name`."""
    if _folder is not None:
        _happen(_folder, name)


def _happen(folder: Path, name: str) -> None:
    if name not in POINTS:
        raise ValueError(f"{name} is no failpoint")
    path = folder / name
    try:
        action, *numbers = path.read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):
        return
    seconds = float(numbers.pop(0)) if action == "sleep" else 0.0
    if numbers and random.random() >= float(numbers[0]):  # noqa: S311
        return
    if not numbers:
        try:
            path.unlink()
        except FileNotFoundError:
            return  # another process was first
    _note(folder, name, action)
    _do(action, seconds)


def _note(folder: Path, name: str, action: str) -> None:
    line = f"{time.monotonic():.6f} {os.getpid()} {name} {action}\n"
    fd = os.open(folder / "hits", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def _do(action: str, seconds: float) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "killnode":
        os.killpg(0, signal.SIGKILL)
    elif action == "stop":
        os.killpg(0, signal.SIGSTOP)
    elif action == "sleep":
        time.sleep(seconds)
    else:
        raise Injected("a failpoint of a test")

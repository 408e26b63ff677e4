"""Says what a test run has left running, and ends it: `python -m omni.testing.leftovers RUN FOLDER`.

A process belongs to the run when it inherited OMNI_TEST_RUN, or when its command names a path in the run's own
temporary folder (an app's sandbox does, whose environment is not ours). Owns the verdict: something left is a failure.
Never looks at anything else: a platform may be running on the same machine.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from omni.launch import proc

_GRACE_S = 5.0


def left_of(run: str, folder: str) -> Iterator[tuple[int, str]]:
    """(pid, command) of what belongs to the run and still lives."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            environment = Path(entry.path, "environ").read_bytes().split(b"\0")
            command = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = f"OMNI_TEST_RUN={run}".encode() in environment or folder in command
            if ours and not proc.is_zombie(int(entry.name)):
                yield int(entry.name), command.strip()


def main(arguments: list[str]) -> int:
    """`RUN` is what OMNI_TEST_RUN holds, `FOLDER` the temporary folder of the run."""
    run, folder = arguments
    if not proc.LINUX or not run or len(folder) < len("/tmp/x"):  # noqa: S108 - a length, no file
        return 0
    above = _ourselves()
    deadline = time.monotonic() + _GRACE_S
    while left := [(pid, command) for pid, command in left_of(run, folder) if pid not in above]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for pid, command in left:
        sys.stdout.write(f"left running: {pid} {command[:150]}\n")
    proc.end([pid for pid, _ in left], grace_s=2.0)
    return 1 if left else 0


def _ourselves() -> set[int]:
    """This process and the shells above it are no leftovers."""
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pids


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Says what a test run has left running, and ends it: `python -m omni.testing.leftovers RUN`.

Every process of a run inherits OMNI_TEST_RUN; app instances get an environment of their own and are known by
OMNI_INSTANCE_ID and by having started after the run. Owns the verdict: something left is a failure.
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


def left_of(run: str, started: float) -> Iterator[tuple[int, str]]:
    """(pid, command) of what belongs to the run and still lives."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environment = Path(entry.path, "environ").read_bytes().split(b"\0")
            ours = f"OMNI_TEST_RUN={run}".encode() in environment and int(entry.name) != int(run)
            instance = any(part.startswith(b"OMNI_INSTANCE_ID=") for part in environment)
            if (ours or (instance and entry.stat().st_mtime >= started)) and not proc.is_zombie(int(entry.name)):
                command = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(entry.name), command.strip()


def main(arguments: list[str]) -> int:
    """`RUN` is the pid of test.sh, the second argument the time it began."""
    if not proc.LINUX:
        return 0
    run, started = arguments[0], float(arguments[1])
    parents = _parents()
    deadline = time.monotonic() + _GRACE_S
    while left := [(pid, command) for pid, command in left_of(run, started) if pid not in parents]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    for pid, command in left:
        sys.stdout.write(f"left running: {pid} {command[:150]}\n")
    proc.end([pid for pid, _ in left], grace_s=2.0)
    return 1 if left else 0


def _parents() -> set[int]:
    """We ourselves and the shells above us are no leftovers."""
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pids


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

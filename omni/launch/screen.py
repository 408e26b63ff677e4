"""What people see while the platform starts and stops: one line for each step. Owns the look, knows no process."""

from __future__ import annotations

import sys
import time
from pathlib import Path


class Screen:
    """Steps are shown as they begin (on a terminal) and once more, with their result and time, when they end."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._step = ""
        self._begun = 0.0

    def begin(self, step: str, doing: str) -> None:
        self._step, self._begun = step, time.monotonic()
        if self._terminal:
            print(f"  {step:<14} {doing} …", end="", flush=True)

    def end(self, result: str) -> None:
        took = f"{time.monotonic() - self._begun:.1f} s"
        clear = "\r\x1b[2K" if self._terminal else ""
        print(f"{clear}  {self._step:<14} {result:<52} {took:>7}", flush=True)
        self._step = ""

    def say(self, line: str) -> None:
        """Something happened by itself; keeps a step's open line intact."""
        if self._terminal and self._step:
            print("\r\x1b[2K", end="")
        print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)

    def fail(self, *lines: str) -> None:
        if self._terminal and self._step:
            print()
        for line in lines:
            print(line, file=sys.stderr, flush=True)


def last_lines(path: str, count: int = 15) -> list[str]:
    """The end of a log, for a message."""
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, Path(path).stat().st_size - 8192))
            return ["    " + line for line in file.read().decode(errors="replace").splitlines()[-count:]]
    except OSError:
        return []

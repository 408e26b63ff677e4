"""What people and scripts see: tables, one-line news, JSON.

Owns every print of the command. Colour, bars and the wait spinner only on a terminal without NO_COLOR; with --json
nothing but the answer's JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

COLOURS = {
    "running": "green",
    "healthy": "green",
    "succeeded": "green",
    "ready": "green",
    "leader": "green",
    "ok": "green",
    "deploying": "yellow",
    "rolling": "yellow",
    "building": "yellow",
    "queued": "yellow",
    "starting": "yellow",
    "degraded": "yellow",
    "draining": "yellow",
    "pending": "yellow",
    "crashed": "red",
    "failed": "red",
    "lost": "red",
    "unhealthy": "red",
    "cancelled": "red",
    "passing": "green",
    "flapping": "yellow",
    "warning": "yellow",
    "failing": "red",
    "open": "red",
}


class Output:
    """One command's output; `as_json` keeps standard output for the answer alone."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.fancy = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def paint(self, text: object, colour: str | None = None) -> str:
        word = str(text)
        colour = colour or COLOURS.get(word)
        return click.style(word, fg=colour) if self.fancy and colour else word

    def answer(self, body: Any) -> bool:
        """Print `body` when JSON is wanted; True when it was."""
        if self.as_json:
            click.echo(json.dumps(body, indent=2, ensure_ascii=False))
        return self.as_json

    def say(self, text: str) -> None:
        """News for people; goes to standard error when standard output is for JSON."""
        click.echo(text, err=self.as_json)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "none") -> None:
        if not rows:
            self.say(empty)
            return
        cells = [[_cell(value) for value in row] for row in rows]
        widths = [max(len(line[i]) for line in [list(heads), *cells]) for i in range(len(heads))]
        self.say(
            "  ".join(
                self.paint(head.ljust(width), "bright_black") for head, width in zip(heads, widths, strict=True)
            ).rstrip()
        )
        for line in cells:
            padded = [self.paint(text) + " " * (width - len(text)) for text, width in zip(line, widths, strict=True)]
            self.say("  ".join(padded).rstrip())

    def facts(self, pairs: Sequence[tuple[str, object]]) -> None:
        width = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            self.say(f"{self.paint(name.ljust(width), 'bright_black')}  {self.paint(_cell(value))}")

    @contextmanager
    def upload(self, total: int) -> Iterator[Callable[[int], None] | None]:
        """A bar for an upload of `total` bytes, on a terminal; nothing elsewhere."""
        if not self.fancy or self.as_json or total < 1 << 20:
            yield None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        with Progress("uploading", BarColumn(), DownloadColumn(), TransferSpeedColumn(), transient=True) as bar:
            task = bar.add_task("upload", total=total)
            yield lambda sent: bar.update(task, completed=sent)


def _cell(value: object) -> str:
    """A figure nobody has measured is a dash, never 0."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    # Names and details come from other people: no escape sequences into this terminal.
    return clean(str(value))


def clean(text: str) -> str:
    """`text` without control characters, tabs excepted."""
    return "".join(c if c == "\t" or c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else " " for c in text)


def size(count: object) -> str:
    """Bytes for people."""
    if not isinstance(count, (int, float)):
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def age(seconds: object) -> str:
    if not isinstance(seconds, (int, float)):
        return "-"
    whole = int(seconds)
    for limit, unit, length in ((120, "s", 1), (7200, "m", 60), (172800, "h", 3600)):
        if whole < limit:
            return f"{whole // length}{unit}"
    return f"{whole // 86400}d"

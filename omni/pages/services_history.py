"""What the checks of a service came to over time, one strip per vantage point, as segments of an SVG.

Owns the statement that reads it and the drawing, which is pure. A gap in which nobody looked stays a gap.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instances.telemetry import statements as sql
from omni.kernel import clock

WINDOWS = {"1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
CELLS, HEIGHT, MOST_NODES = 240, 24, 12
_TONES = ("ok", "warn", "bad")
_TALL = {"ok": 11, "warn": 17, "bad": HEIGHT}  # so that the colour is not all that tells
_SAID = {"ok": "passing", "warn": "warning", "bad": "failing"}
# spans are at most a minute long; those of one cell become one row
_STATEMENT = (
    "SELECT node, MIN(from_us), MAX(at_us), SUM(CASE outcome WHEN 'failing' THEN checks ELSE 0 END), "
    "SUM(CASE outcome WHEN 'warning' THEN checks ELSE 0 END), SUM(checks), AVG(latency_ms) "
    "FROM services_checkspan WHERE service_id = %s AND from_us >= %s "
    "GROUP BY node, from_us - (from_us %% %s) ORDER BY node, MIN(from_us)"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Checks of one vantage point; microseconds."""

    from_us: int
    until_us: int
    failing: int
    warning: int
    checks: int
    latency_ms: float | None

    @property
    def tone(self) -> str:
        return _TONES[2 if self.failing else 1 if self.warning else 0]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the strip of one colour; `x`, `width` and `height` in its own units."""

    x: int
    width: int
    height: int
    tone: str
    title: str

    @property
    def y(self) -> int:
        return HEIGHT - self.height


@dataclass(frozen=True, slots=True)
class Strip:
    """`course` is the line of answer times, `x,y x,y …`; empty without two measured points."""

    node: str
    segments: tuple[Segment, ...]
    course: str
    latency_ms: float | None
    checks: int
    failing: int


def strips(service_id: int, window: str, interval_s: float, now: dt.datetime) -> list[Strip]:
    """By node. One query."""
    end, length = clock.to_us(now), WINDOWS[window] * 1_000_000
    rows = sql.select(_STATEMENT, [service_id, end - length, length // CELLS])
    found: dict[str, list[Piece]] = {}
    for node, from_us, until_us, failing, warning, checks, latency in rows:
        piece = Piece(int(from_us), int(until_us), int(failing), int(warning), int(checks), latency)
        found.setdefault(str(node), []).append(piece)
    return [drawn(node, pieces, end, length, interval_s) for node, pieces in sorted(found.items())]


def drawn(node: str, pieces: Sequence[Piece], end_us: int, length_us: int, interval_s: float) -> Strip:
    """Pure. What was seen last counts until the next check is due."""
    start, cell = end_us - length_us, length_us // CELLS
    tones: list[str] = [""] * CELLS
    for after in (True, False):  # what a check came to goes before what it stands for afterwards
        for piece in pieces:
            until = piece.until_us + (int(interval_s * 1e6) if after else 0)
            first, last = max(0, (piece.from_us - start) // cell), min(CELLS - 1, (min(until, end_us) - start) // cell)
            for place in range(first, last + 1):
                if after or not tones[place] or _TONES.index(piece.tone) > _TONES.index(tones[place]):
                    tones[place] = piece.tone
    measured = [(p.from_us, p.latency_ms) for p in pieces if p.latency_ms is not None]
    return Strip(
        node, tuple(_segments(tones, start, cell)), _course(measured, start, length_us),
        measured[-1][1] if measured else None, sum(p.checks for p in pieces), sum(p.failing for p in pieces),
    )  # fmt: skip


def _segments(tones: Sequence[str], start_us: int, cell_us: int) -> Iterable[Segment]:
    place = 0
    while place < len(tones):
        end = place
        while end < len(tones) and tones[end] == tones[place]:
            end += 1
        if tones[place]:
            shown = "%H:%M:%S" if cell_us <= 60_000_000 else "%d %b %H:%M"
            begun, ended = (clock.from_us(start_us + at * cell_us).strftime(shown) for at in (place, end))
            title = f"{_SAID[tones[place]]}, {begun} to {ended} UTC"
            yield Segment(place, end - place, _TALL[tones[place]], tones[place], title)
        place = end


def _course(measured: Sequence[tuple[int, float]], start_us: int, length_us: int) -> str:
    if len(measured) < 2:
        return ""
    top = max(1.0, *(value for _, value in measured))
    return " ".join(
        f"{max(0.0, (at - start_us) / length_us) * CELLS:.1f},{HEIGHT - 2 - value / top * (HEIGHT - 4):.1f}"
        for at, value in measured
    )

"""How far an instance's output has been read, sent and acknowledged.

Owns the numbers that survive the agent. The one rule: what is about to be sent is written down *before* it is sent,
as ranges of bytes. An agent that dies between sending and hearing the answer sends exactly the same lines under
the same numbers again, and the receiver knows them by their numbers: nothing is lost, nothing comes twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent import plain
from agent.store import write_atomically

FILE = "cursor.json"


@dataclass(frozen=True, slots=True)
class Flight:
    """Bytes [start, end) of one stream on their way; before their lines goes a note about `dropped` ones, if any."""

    start: int
    end: int
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """`position`: what lies before is on its way, acknowledged, or dropped. `dropped`: not yet told about."""

    position: int = 0
    dropped: int = 0
    flight: Flight | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """`seq` is the number of the first line that is not acknowledged; both streams share the numbers."""

    seq: int = 1
    streams: list[Stream] = field(default_factory=lambda: [Stream(), Stream()])

    @property
    def in_flight(self) -> bool:
        return any(stream.flight is not None for stream in self.streams)


def departed(cursor: Cursor, ends: list[int]) -> Cursor:
    """Send what lies between each stream's position and its `end`, notes about dropped lines first."""
    streams = []
    for stream, end in zip(cursor.streams, ends, strict=True):
        if end > stream.position or stream.dropped:
            flight = Flight(stream.position, max(end, stream.position), stream.dropped)
            streams.append(Stream(position=flight.end, dropped=0, flight=flight))
        else:
            streams.append(stream)
    return replace(cursor, streams=streams)


def arrived(cursor: Cursor, next_seq: int) -> Cursor:
    """Everything in flight is acknowledged; the next line is number `next_seq`."""
    return Cursor(next_seq, [replace(stream, flight=None) for stream in cursor.streams])


def renumbered(cursor: Cursor, seq: int) -> Cursor:
    """The receiver goes on from `seq`: what is in flight goes again, under these numbers."""
    return replace(cursor, seq=seq)


def skipped(cursor: Cursor, which: int, position: int, dropped: int) -> Cursor:
    """Lines up to `position` of one stream will never be sent, only counted."""
    streams = list(cursor.streams)
    streams[which] = replace(streams[which], position=position, dropped=streams[which].dropped + dropped)
    return replace(cursor, streams=streams)


def rewound(cursor: Cursor, which: int) -> Cursor:
    """The file has become shorter than what was read of it: somebody emptied it, go on at its start."""
    streams = list(cursor.streams)
    streams[which] = replace(streams[which], position=0, flight=None)
    return replace(cursor, streams=streams)


def load(directory: Path) -> Cursor:
    try:
        cursor = plain.from_json(Cursor, json.loads((directory / FILE).read_bytes()))
    except (OSError, ValueError):
        return Cursor()
    return cursor if len(cursor.streams) == 2 else Cursor()


def save(directory: Path, cursor: Cursor) -> None:
    write_atomically(directory / FILE, cursor)

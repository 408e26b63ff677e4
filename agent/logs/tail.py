"""The output of one instance: two files that its program appends to, and how far we are with them.

Owns reading, trimming and giving space back. The program writes whether we live or not. Space comes back as holes at
the front (`agent.logs.hole`), so no line is lost to a rotation; what is kept is bounded by `max_bytes`, and beyond
that the oldest lines are dropped and counted. The last 64 KiB stay as evidence even when they were shipped.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from agent.logs import cursor as cursors
from agent.logs import hole, lines
from agent.logs.cursor import Cursor, Flight
from agent.logs.marks import Marks

NAMES = ("stdout.log", "stderr.log")
CHUNK = 384 * 1024  # bytes of one stream in one batch
EVIDENCE_BYTES = 64 * 1024
EVIDENCE_LINES = 50
EVIDENCE_ERRORS = 40  # at most so many of them from stderr when stdout has as many to show
_EVIDENCE_LINE = 1024
_PUNCH_STEP = 1024 * 1024
_COUNT_BLOCK = 1024 * 1024


class Tail:
    """Not for two users at a time. `batch` answers the same lines until `acknowledge` was called."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._cursor = cursors.load(directory)
        self._paths = [directory / name for name in NAMES]
        self._files: list[int | None] = [None, None]
        self._punched = [0, 0]
        self._marks = (Marks(), Marks())
        self._last_us = self._departing_us = 0  # of the last line that arrived; of the last one on its way

    @property
    def seq(self) -> int:
        return self._cursor.seq

    def waiting(self) -> bool:
        """Whether there are bytes that nobody has acknowledged (an unfinished line included)."""
        sizes = [self._size(which) for which in (0, 1)]
        streams = self._cursor.streams
        return self._cursor.in_flight or any(
            stream.dropped or stream.position < size for stream, size in zip(streams, sizes, strict=True)
        )

    def batch(self, at_us: int, most: int) -> list[list[Any]]:
        """The next lines as `[at_us, stream, text]`, at most about `most` a stream; written down before it returns.

        Each has the time at which it was first seen, ascending; `at_us` is now.
        """
        if not self._cursor.in_flight:
            for which in (0, 1):
                self._marks[which].note(self._size(which), at_us)
            departing = self._next(most)
            if not departing.in_flight:
                return []
            cursors.save(self._directory, departing)
            self._cursor = departing
        found: list[list[Any]] = []
        for which, stream in enumerate(self._cursor.streams):
            if stream.flight is not None:
                found += self._timed(which, stream.flight, at_us)
        if not found:  # bytes without a line (the file was emptied under us)
            self._cursor = cursors.arrived(self._cursor, self._cursor.seq)
            return found
        found.sort(key=_time)
        if self._last_us <= at_us:  # else the clock was set back
            for line in found:
                line[0] = max(line[0], self._last_us)
        self._departing_us = found[-1][0]
        return found

    def acknowledge(self, count: int, acked: int) -> None:
        """The receiver holds everything up to number `acked`; `count` lines were in flight."""
        last = self._cursor.seq + count - 1
        if acked >= last:
            self._cursor = cursors.arrived(self._cursor, acked + 1)
            self._last_us = self._departing_us
            self._give_back()
        elif acked < self._cursor.seq - 1:
            self._cursor = cursors.renumbered(self._cursor, acked + 1)
            cursors.save(self._directory, self._cursor)

    def discard(self) -> None:
        """Nobody wants these lines."""
        self._cursor = Cursor(self._cursor.seq, [cursors.Stream(size) for size in self.sizes()])
        self._give_back()

    def trim(self, at_us: int) -> None:
        """Drop and count the oldest lines when there is more than `max_bytes`; what is in flight stays.

        Notes how far the program has written by now.
        """
        for which in (0, 1):
            size, stream = self._size(which), self._cursor.streams[which]
            flight = stream.flight
            self._marks[which].forget(flight.start if flight else stream.position, flight.end if flight else 0)
            self._marks[which].note(size, at_us)
            share = self._max_bytes // 2
            if size - stream.position <= share:
                continue
            position, count = self._skip(which, stream.position, size - share * 3 // 4)
            self._cursor = cursors.skipped(self._cursor, which, position, count)
            cursors.save(self._directory, self._cursor)
            if stream.flight is None:
                self._punch(which, position)

    def finish_line(self) -> None:
        """The program is gone: end its unfinished last lines, so that the next one's first line is its own."""
        for which in (0, 1):
            fd, size = self._open(which), self._size(which)
            if fd is not None and size > 0 and os.pread(fd, 1, size - 1) != b"\n":
                os.pwrite(fd, b"\n", size)

    def start_over(self) -> None:
        """Nothing runs: empty the files if they are large and everything in them is acknowledged."""
        if self.waiting() or max(self.sizes()) < _PUNCH_STEP:
            return
        cursors.save(self._directory, self._cursor)
        for which in (0, 1):
            fd = self._open(which)
            if fd is not None:
                os.ftruncate(fd, 0)
        self._punched = [0, 0]
        self._cursor = Cursor(self._cursor.seq)
        cursors.save(self._directory, self._cursor)

    def evidence(self, since: tuple[int, int]) -> list[str]:
        """The last lines written after the offsets `since`, those of stderr behind those of stdout: errors go there."""
        ends = [self._last_lines(which, since[which]) for which in (0, 1)]
        errors = ends[1][-max(EVIDENCE_ERRORS, EVIDENCE_LINES - len(ends[0])) :]
        room = EVIDENCE_LINES - len(errors)
        return (ends[0][-room:] if room else []) + errors

    def sizes(self) -> tuple[int, int]:
        return self._size(0), self._size(1)

    def save(self) -> None:
        cursors.save(self._directory, self._cursor)

    def close(self) -> None:
        for which, fd in enumerate(self._files):
            if fd is not None:
                os.close(fd)
                self._files[which] = None

    def _next(self, most: int) -> Cursor:
        ends = []
        for which in (0, 1):
            size = self._size(which)
            if size < self._cursor.streams[which].position:
                self._cursor = cursors.rewound(self._cursor, which)
            position = self._cursor.streams[which].position
            block = self._read(which, position, min(size - position, CHUNK))
            ends.append(position + lines.whole(block, most))
        return cursors.departed(self._cursor, ends)

    def _timed(self, which: int, flight: Flight, now_us: int) -> list[list[Any]]:
        texts = lines.split(self._read(which, flight.start, flight.end - flight.start))
        times = self._marks[which].times(flight.start, flight.end, texts, now_us)
        found: list[list[Any]] = [[at, which, text] for at, text in zip(times, texts, strict=True)]
        if flight.dropped:
            found.insert(0, [times[0] if times else now_us, which, lines.NOTE.format(flight.dropped)])
        return found

    def _give_back(self) -> None:
        for which in (0, 1):
            end = min(self._cursor.streams[which].position, self._size(which) - EVIDENCE_BYTES)
            if end - self._punched[which] >= _PUNCH_STEP:
                # The numbers go to disk first: a hole must never lie where they still point.
                cursors.save(self._directory, self._cursor)
                self._punch(which, end)

    def _punch(self, which: int, end: int) -> None:
        fd = self._open(which)
        if fd is not None:
            with contextlib.suppress(OSError):
                self._punched[which] = hole.punch(fd, end, self._punched[which])

    def _skip(self, which: int, start: int, target: int) -> tuple[int, int]:
        """The first line's start at or behind `target`, and how many lines lie between it and `start`."""
        count, position = 0, start
        while True:
            block = self._read(which, position, _COUNT_BLOCK)
            if position + len(block) < target and block:
                count += block.count(b"\n")
                position += len(block)
                continue
            inside = max(0, target - position - 1)
            end = block.find(b"\n", inside)
            if end < 0:
                return position + len(block), count + block.count(b"\n")
            return position + end + 1, count + block.count(b"\n", 0, end + 1)

    def _last_lines(self, which: int, since: int) -> list[str]:
        size = self._size(which)
        start = max(min(since, size), size - EVIDENCE_BYTES)
        found = lines.split(self._read(which, start, size - start))
        if start > since and found:
            found = found[1:]  # most likely only the end of a line
        return [line[:_EVIDENCE_LINE] for line in found[-EVIDENCE_LINES:]]

    def _read(self, which: int, start: int, length: int) -> bytes:
        fd = self._open(which)
        if fd is None or length <= 0:
            return b""
        return os.pread(fd, length, start)

    def _size(self, which: int) -> int:
        fd = self._open(which)
        return 0 if fd is None else os.fstat(fd).st_size

    def _open(self, which: int) -> int | None:
        fd = self._files[which]
        if fd is None:
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(self._paths[which], os.O_RDWR | os.O_CLOEXEC)
                self._files[which] = fd
        return fd


def _time(line: list[Any]) -> int:
    return int(line[0])

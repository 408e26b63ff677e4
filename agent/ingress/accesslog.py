"""Reading Caddy's access log as it grows, across its rotations and our restarts.

Owns the position (which file, how far). Must not interpret the lines.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Position:
    """A file by its inode (a rotation renames it), and the bytes of it that have been read."""

    inode: int
    offset: int


class AccessLog:
    """The log at `path`; rotated files lie beside it as `<stem>-<time>…<suffix>`."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self._path = path
        self._position = position
        self._file: BinaryIO | None = None
        self._rest = b""

    @property
    def position(self) -> Position | None:
        """Up to the last whole line that was handed out."""
        return self._position

    def read(self) -> Iterator[list[bytes]]:
        """Whole lines that have appeared since, chunk by chunk; ends when there are no more for now."""
        while self._file is not None or self._open():
            assert self._file is not None  # noqa: S101 - for the type checker; _open has set it
            chunk = self._file.read(CHUNK)
            if chunk:
                lines = (self._rest + chunk).split(b"\n")
                self._rest = lines.pop()
                self._position = Position(os.fstat(self._file.fileno()).st_ino, self._file.tell() - len(self._rest))
                if lines:
                    yield lines
            elif not self._next():
                return

    def _files(self) -> list[Path]:
        """Oldest first, the one being written last."""
        rotated = sorted(self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}"))
        return [*rotated, self._path]

    def _open(self) -> bool:
        """Open where the position says; files older than everything that is left start at the oldest."""
        inodes = []
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):
                inodes.append((file, file.stat().st_ino))
        if not inodes:
            return False
        start = self._position
        found = next((file for file, inode in inodes if start is not None and inode == start.inode), None)
        return self._take(found or inodes[0][0], start.offset if found is not None and start is not None else 0)

    def _take(self, file: Path, offset: int) -> bool:
        self.close()
        try:
            self._file = file.open("rb")
        except FileNotFoundError:
            return False
        stat = os.fstat(self._file.fileno())
        offset = offset if offset <= stat.st_size else 0
        self._file.seek(offset)
        self._position = Position(stat.st_ino, offset)
        return True

    def _next(self) -> bool:
        """At the end of the open file: go on to the one after it, if it has been rotated away."""
        assert self._file is not None  # noqa: S101 - for the type checker; only called with an open file
        inode = os.fstat(self._file.fileno()).st_ino
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == inode:
                return False
        if self._file.read(1):  # written between our last read and the rotation
            self._file.seek(-1, os.SEEK_CUR)
            return True
        files = self._files()
        for i, file in enumerate(files[:-1]):
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_ino == inode:
                    return self._take(files[i + 1], 0)
        return self._take(files[0], 0) if files[0].exists() else False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""

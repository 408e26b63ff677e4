"""The Raft log, the term and the vote on disk.

Owns two files: `journal` (records with checksums, appended and made durable before anybody is told of them) and `meta`
(two slots written in turn, so that a torn write leaves the older one). Both keep reserved space, so that a full disk
does not stop a member that has little to write; plain writes, no mapped file, so that it is an error and no signal.
Written in the shape of PySyncObj's own journal, whose place it takes: that one is never made durable, is emptied
in place at each compaction, and reads an unreadable vote as none. Must not know what a command means.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omni.kernel import clock

Entry = tuple[bytes, int, int]  # command, index, term: the order is PySyncObj's

_MAGIC = b"omni raft 1\n"
_HEADER = struct.Struct("<12sxxxxQ")  # magic, how far the file is known to be durable
_RECORD = struct.Struct("<IIQQ")  # checksum of the rest, bytes of command, index, term
_RESERVE = 1 << 20
_SLOW_S = 0.1
_log = logging.getLogger("omni.raft")
_SLOT = 4096
_META_CRC = struct.Struct("<II")  # checksum, length


class Damaged(Exception):
    """A file holds what we never wrote, or no longer holds what we did."""


class DiskFailed(Exception):
    """Nothing can be written: this member must stop before it promises anything."""


class Journal:
    """All entries are in memory too; there are few."""

    def __init__(self, path: Path, meta: Meta) -> None:
        """Raises Damaged, DiskFailed. Entries behind the durable part that cannot be read were never promised."""
        self.meta = meta
        self.cut = 0  # bytes of a torn last write that were left out when the file was opened
        self._path = path
        self._entries: list[Entry] = []
        self._offsets: list[int] = []  # where each entry begins
        self._dirty = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._end = self._read() if os.fstat(self._fd).st_size else self._begin()
        except Damaged:
            os.close(self._fd)
            raise
        except OSError as error:
            raise DiskFailed(f"{path}: {error.strerror}") from error
        self._reserved = os.fstat(self._fd).st_size

    def add(self, command: bytes, idx: int, term: int) -> None:
        record = _pack(command, idx, term)
        self._reserve(self._end + len(record))
        self._write(record, self._end)
        self._entries.append((command, idx, term))
        self._offsets.append(self._end)
        self._end += len(record)

    def sync(self) -> None:
        """Afterwards everything added survives a power cut. To be called before any answer that promises it."""
        if not self._dirty:
            return
        begun = clock.monotonic()
        try:
            datasync(self._fd)
        except OSError as error:
            raise DiskFailed(f"{self._path}: {error.strerror}") from error
        if (took := clock.monotonic() - begun) > _SLOW_S:
            _log.warning("the disk took %.2f s to keep what was written to %s", took, self._path)
        self._dirty = False
        self._mark_durable()

    def clear(self) -> None:
        self._entries, self._offsets = [], []
        self._truncate(_HEADER.size)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803 - PySyncObj calls it so
        """Drop the entry at this position and all behind it."""
        if entryFrom < len(self._entries):
            end = self._offsets[entryFrom]
            del self._entries[entryFrom:], self._offsets[entryFrom:]
            self._truncate(end)

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803 - PySyncObj calls it so
        """Drop the entries before this position: into a new file, so that no crash finds half a journal."""
        if entryTo <= 0:
            return
        kept = self._entries[entryTo:]
        body = b"".join(_pack(*entry) for entry in kept)
        end = _HEADER.size + len(body)
        temporary = self._path.with_name(self._path.name + ".new")
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                reserve(fd, 0, end + _RESERVE)
                os.pwrite(fd, _HEADER.pack(_MAGIC, end) + body, 0)
                datasync(fd)
                sync_folder(self._path.parent)  # first the snapshot that stands for the entries
                temporary.replace(self._path)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            # The old file is whole; being longer than needed hurts nobody.
            temporary.unlink(missing_ok=True)
            raise DiskFailed(f"{self._path}: cannot be shortened: {error.strerror}") from error
        os.close(self._fd)
        self._fd, self._end, self._reserved, self._dirty = fd, end, end + _RESERVE, False
        self._entries, self._offsets = kept, _offsets(kept)
        sync_folder(self._path.parent)

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        return self._entries

    def position(self, index: int) -> int | None:
        """Where in the list the entry with this Raft index stands."""
        if not self._entries:
            return None
        position = index - self._entries[0][1]
        return position if 0 <= position < len(self._entries) else None

    def _destroy(self) -> None:
        self.sync()
        self.meta.save()
        os.close(self._fd)
        self.meta.close()

    # The term, the vote and the commit index, by the names that PySyncObj calls.

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        """Only a hint that saves work after a restart: written with the next thing that must be."""
        self.meta.commit_index = raftCommitIndex

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        return self.meta.commit_index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        """Durable when it returns: the message that tells of it is sent afterwards."""
        self.meta.term, self.meta.vote = term, votedForNodeId
        self.meta.save()

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self.meta.term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        return self.meta.vote

    def onOneSecondTimer(self) -> None:  # noqa: N802
        self.meta.save(durably=False)

    def _begin(self) -> int:
        reserve(self._fd, 0, _RESERVE)
        os.pwrite(self._fd, _HEADER.pack(_MAGIC, _HEADER.size), 0)
        datasync(self._fd)
        sync_folder(self._path.parent)
        return _HEADER.size

    def _read(self) -> int:
        with os.fdopen(os.dup(self._fd), "rb") as file:
            content = file.read()
        if len(content) < _HEADER.size:
            raise Damaged(f"{self._path}: is cut off in its header")
        magic, durable = _HEADER.unpack_from(content)
        if magic != _MAGIC:
            raise Damaged(f"{self._path}: is no journal of this version")
        end = _HEADER.size
        while (entry := _unpack(content, end)) is not None:
            if self._entries and (entry[1] != self._entries[-1][1] + 1 or entry[2] < self._entries[-1][2]):
                break
            self._entries.append(entry)
            self._offsets.append(end)
            end += _RECORD.size + len(entry[0])
        if end < durable:
            raise Damaged(f"{self._path}: cannot be read beyond byte {end}, and was whole up to {durable}")
        self.cut = len(content[end:].rstrip(b"\0"))
        if self.cut:
            os.pwrite(self._fd, b"\0" * self.cut, end)
            datasync(self._fd)
        return end

    def _reserve(self, end: int) -> None:
        if end <= self._reserved:
            return
        try:
            reserve(self._fd, self._reserved, end + _RESERVE - self._reserved)
            self._reserved = end + _RESERVE
        except OSError:
            self._reserved = end  # no room for a reserve; the write itself will tell

    def _write(self, data: bytes, offset: int) -> None:
        self._dirty = True
        try:
            if os.pwrite(self._fd, data, offset) != len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise DiskFailed(f"{self._path}: {error.strerror}") from error

    def _truncate(self, end: int) -> None:
        """Zeros stand behind the last record, durably, so that an old one never appears behind a new one."""
        old, self._end = self._end, end
        self._mark_durable()
        self._dirty = True
        self.sync()
        self._write(b"\0" * (old - end), end)
        self.sync()

    def _mark_durable(self) -> None:
        """Not made durable itself; it may lag behind after a power cut, never run ahead."""
        os.pwrite(self._fd, _HEADER.pack(_MAGIC, self._end), 0)


class Meta:
    """Term, vote, commit index, and whether this member has yet to catch up (`fresh`). 4 KiB a slot, two slots."""

    def __init__(self, path: Path) -> None:
        """Raises Damaged when neither slot can be read, DiskFailed."""
        self.term = 0
        self.vote: str | None = None
        self.commit_index = 1
        self.fresh = True
        self._path = path
        self._number = 0
        try:
            existed = path.exists() and path.stat().st_size > 0
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if existed:
                self._read()
            else:
                reserve(self._fd, 0, 2 * _SLOT)
                self.save()
                sync_folder(path.parent)
        except Damaged:
            os.close(self._fd)
            raise
        except OSError as error:
            raise DiskFailed(f"{path}: {error.strerror}") from error
        self._saved = self._values()

    def save(self, *, durably: bool = True) -> None:
        if self._number and self._values() == self._saved:
            return
        body = json.dumps({"number": self._number + 1, **self._values()}).encode()
        slot = _META_CRC.pack(zlib.crc32(body), len(body)) + body
        try:
            os.pwrite(self._fd, slot.ljust(_SLOT, b"\0"), _SLOT * (self._number % 2))
            if durably:
                datasync(self._fd)
        except OSError as error:
            raise DiskFailed(f"{self._path}: {error.strerror}") from error
        self._number += 1
        self._saved = self._values()

    def close(self) -> None:
        os.close(self._fd)

    def _values(self) -> dict[str, Any]:
        return {"term": self.term, "vote": self.vote, "commit_index": self.commit_index, "fresh": self.fresh}

    def _read(self) -> None:
        raw = [os.pread(self._fd, _SLOT, place * _SLOT) for place in (0, 1)]
        slots = [found for content in raw if (found := self._slot(content))]
        if not slots:
            raise Damaged(f"{self._path}: neither of its two copies can be read")
        newest = max(slots, key=lambda slot: slot["number"])
        self._number = newest["number"]
        self.term, self.vote = newest["term"], newest["vote"]
        self.commit_index, self.fresh = newest["commit_index"], newest["fresh"]
        if len(slots) < sum(1 for content in raw if content.strip(b"\0")):
            self.fresh = True  # the copy that cannot be read may have held a newer vote

    def _slot(self, raw: bytes) -> dict[str, Any] | None:
        if len(raw) < _META_CRC.size:
            return None
        checksum, length = _META_CRC.unpack_from(raw)
        body = raw[_META_CRC.size : _META_CRC.size + length]
        if length == 0 or zlib.crc32(body) != checksum:
            return None
        values: dict[str, Any] = json.loads(body)
        return values


def datasync(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


def reserve(fd: int, offset: int, length: int) -> None:
    """Take the room now, so that a later write cannot fail for want of it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, offset, length)
        return
    missing = offset + length - os.fstat(fd).st_size
    if missing > 0:
        os.pwrite(fd, b"\0" * missing, offset + length - missing)


def sync_folder(folder: Path) -> None:
    """Names are durable only after this."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _pack(command: bytes, index: int, term: int) -> bytes:
    rest = _RECORD.pack(0, len(command), index, term)[4:] + command
    return struct.pack("<I", zlib.crc32(rest)) + rest


def _unpack(content: bytes, offset: int) -> Entry | None:
    if offset + _RECORD.size > len(content):
        return None
    checksum, length, index, term = _RECORD.unpack_from(content, offset)
    end = offset + _RECORD.size + length
    if index == 0 or end > len(content) or zlib.crc32(content[offset + 4 : end]) != checksum:
        return None
    return content[offset + _RECORD.size : end], index, term


def _offsets(entries: Sequence[Entry]) -> list[int]:
    offsets, end = [], _HEADER.size
    for command, _, _ in entries:
        offsets.append(end)
        end += _RECORD.size + len(command)
    return offsets

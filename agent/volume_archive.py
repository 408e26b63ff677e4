"""A volume as a stream of bytes: a gzipped tar, made while it is sent and never whole anywhere.

Owns what goes into the archive of a snapshot. Programs may write into the directory meanwhile and as they please: every
name is opened below its open folder and never through a link, a file is as long in the archive as it was when it was
opened, and what goes away under way is left out and counted. Names that `sandbox.archive` would refuse to unpack are
refused here already. Modes and owners are kept, but for setuid, setgid and sticky bits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.archive_model import BadArchive, Budget, Limits, Links, check_symlink, clean_name

DEPTH = 64
FILES = 2_000_000
LINKS = Links(anywhere=True)
_PIECE = 1 << 20
_BLOCK = 512
_LEVEL = 1  # of gzip: the node has other things to do
_LATEST = 8**11 - 1
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHANGED = (errno.ELOOP, errno.ENXIO, errno.EMLINK)  # a link, or a socket, in place of what was there
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Tally:
    """What has gone into the archive so far. `root`: whose the volume is, and its mode."""

    files: int = 0
    content_bytes: int = 0
    skipped: int = 0
    root: dict[str, int] = field(default_factory=dict)


def pieces(volume: Path, max_bytes: int, tally: Tally, tick: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """The archive, piece by piece; `tick` is called all the while and may raise. A volume that no instance has needed
    yet is an empty one. Raises BadArchive for what cannot be packed, `too_many_bytes` above `max_bytes`; OSError."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    limits = Limits(files=FILES, bytes=max_bytes, member_bytes=1 << 62, depth=DEPTH)
    waiting = b""
    for block in _Walk(Budget(limits, tick), tally).archive(volume):
        waiting += packer.compress(block)
        if len(waiting) >= _PIECE:
            yield waiting
            waiting = b""
    yield waiting + packer.flush()


class _Walk:
    def __init__(self, budget: Budget, tally: Tally) -> None:
        self._budget, self._tally = budget, tally
        self._linked: dict[tuple[int, int], str] = {}

    def archive(self, volume: Path) -> Iterator[bytes]:
        try:
            at = os.open(volume, _DIRECTORY)
        except FileNotFoundError:
            at = -1
        if at >= 0:
            try:
                status = os.fstat(at)
                mode = stat.S_IMODE(status.st_mode) & 0o777
                self._tally.root = {"uid": status.st_uid, "gid": status.st_gid, "mode": mode}
                yield from self._below(at, "")
            finally:
                os.close(at)
        yield bytes(2 * _BLOCK)

    def _below(self, at: int, prefix: str) -> Iterator[bytes]:
        for part in sorted(os.listdir(at), key=os.fsencode):
            name = f"{prefix}{part}"
            try:
                status = os.stat(part, dir_fd=at, follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
            except FileNotFoundError:
                kind = 0
            if kind in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK):
                self._check(name)
                with contextlib.suppress(_Gone):
                    yield from self._one(at, part, name, kind, status)
                    continue
            self._tally.skipped += 1

    def _one(self, at: int, part: str, name: str, kind: int, status: os.stat_result) -> Iterator[bytes]:
        if kind == stat.S_IFLNK:
            yield self._link(at, part, name, status)
        elif kind == stat.S_IFREG:
            yield from self._file(at, part, name)
        else:
            inner = _opened(part, _DIRECTORY, at)
            try:
                info = _info(name, os.fstat(inner))
                info.type = tarfile.DIRTYPE
                yield self._counted(info)
                yield from self._below(inner, f"{name}/")
            finally:
                os.close(inner)

    def _link(self, at: int, part: str, name: str, status: os.stat_result) -> bytes:
        info = _info(name, status)
        info.type = tarfile.SYMTYPE
        try:
            info.linkname = os.readlink(part, dir_fd=at)
        except OSError:
            raise _Gone from None
        check_symlink(name, info.linkname, LINKS)
        return self._counted(info)

    def _file(self, at: int, part: str, name: str) -> Iterator[bytes]:
        with os.fdopen(_opened(part, _FILE, at), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _Gone
            info = _info(name, status)
            known = self._linked.get((status.st_dev, status.st_ino))
            if status.st_nlink > 1 and known is not None:
                info.type, info.linkname = tarfile.LNKTYPE, known
                yield self._counted(info)
                return
            self._linked[status.st_dev, status.st_ino] = name
            self._budget.check_size(status.st_size, name)
            info.size = status.st_size
            yield self._counted(info)
            yield from self._content(file.read, info.size, name)

    def _content(self, read: Callable[[int], bytes], left: int, name: str) -> Iterator[bytes]:
        """As many bytes as were promised: one that became shorter meanwhile ends in zeros."""
        padding = -left % _BLOCK
        while left:
            piece = read(min(left, _PIECE)) or bytes(min(left, _PIECE))
            left -= len(piece)
            self._budget.add_bytes(len(piece), name)
            self._tally.content_bytes += len(piece)
            yield piece
        yield bytes(padding)

    def _counted(self, info: tarfile.TarInfo) -> bytes:
        header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        extended = int(header[124:135], 8) if header[156:157] == tarfile.XHDTYPE else 0
        self._budget.add_file(info.name)
        self._budget.add_header(extended)  # as it is counted when it is unpacked
        self._tally.files += 1
        return header

    def _check(self, name: str) -> None:
        if clean_name(name, self._budget.limits) != name:
            raise BadArchive("bad_name", "a name that cannot be packed", name)


class _Gone(Exception):
    """It was another thing a moment ago, or nothing is there any more."""


def _opened(part: str, flags: int, at: int) -> int:
    try:
        return os.open(part, flags, dir_fd=at)
    except (FileNotFoundError, NotADirectoryError):
        raise _Gone from None
    except OSError as error:
        if error.errno in _CHANGED:
            raise _Gone from None
        raise


def _info(name: str, status: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(status.st_mode) & 0o777
    info.uid, info.gid = status.st_uid, status.st_gid
    info.mtime = min(max(int(status.st_mtime), 0), _LATEST)
    return info

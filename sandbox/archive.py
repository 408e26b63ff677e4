"""Unpacking archives that may be hostile, and packing trees so that equal trees give equal bytes.

Owns what is written to disk. The rules are archive_model's, the formats archive_tar's and archive_zip's. Nothing
may be written outside: directories and files are made first, in a directory that nobody else writes to, and links
only when everything else is there, so that no path ever leads through one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sandbox import archive_tar, archive_zip
from sandbox.archive_model import (
    BadArchive,
    Budget,
    Entry,
    Limits,
    Links,
    Names,
    check_symlink,
    clean_name,
)

__all__ = ["BadArchive", "Keep", "Limits", "Links", "Packed", "Unpacked", "pack", "unpack"]

_NO_LIMITS = Limits()
_TREE_ONLY = Links()
_EARLIEST = 315_532_800  # 1980: zip knows no earlier time
_OTHER_FORMATS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Keep:
    """Modes stay as the archive says, but for setuid, setgid and sticky bits; so do times of directories.

    `owner_of` maps the archive's (uid, gid) to whose a thing becomes; None: everything is ours. An empty tree is taken.
    """

    owner_of: Callable[[int, int], tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Unpacked:
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Packed:
    sha256: str
    size: int


def unpack(
    path: Path,
    destination: Path,
    limits: Limits = _NO_LIMITS,
    links: Links = _TREE_ONLY,
    owner: tuple[int, int] | None = None,
    tick: Callable[[], None] = lambda: None,
    keep: Keep | None = None,
) -> Unpacked:
    """Unpack tar, tar.gz or zip, told apart by content. `owner` (uid, gid) gets everything, the root included.

    `destination` must not exist or be empty, in a directory that only the caller writes to; when the archive is
    refused (BadArchive), or `tick`, which is called all the while, raises, nothing of it stays. Times are kept, modes
    become 644 or 755 unless there is a `keep`.
    """
    destination.mkdir(mode=0o755, exist_ok=True)
    if any(destination.iterdir()):
        raise FileExistsError(f"{destination} is not empty")
    try:
        with path.open("rb") as stream:
            entries = _entries(stream, budget := Budget(limits, tick), links)
            done = _write_tree(entries, destination, budget, owner, keep)
    except BaseException:
        _empty(destination)
        raise
    if owner:
        os.chown(destination, *owner)
    return done


def pack(
    tree: Path,
    out: Path,
    limits: Limits = _NO_LIMITS,
    links: Links = _TREE_ONLY,
    alias: str = "/app",
    tick: Callable[[], None] = lambda: None,
) -> Packed:
    """Write `tree` as an uncompressed tar: the same bytes for the same names, contents, times and execute bits.

    Absolute links below `alias` (where the tree lay while it was built) become relative. The tree may be hostile,
    but nobody may be writing to it any more. Raises BadArchive for what `unpack` would refuse.
    """
    budget = Budget(limits, tick)
    digest = hashlib.sha256()
    size = 0
    with out.open("wb") as stream:
        for piece in _tar_pieces(tree, budget, links, alias):
            digest.update(piece)
            size += len(piece)
            stream.write(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return Packed(digest.hexdigest(), size)


def _entries(stream: BinaryIO, budget: Budget, links: Links) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    start = stream.read(512)
    stream.seek(0)
    if start[:2] == b"\x1f\x8b":
        return archive_tar.entries(archive_tar.Gunzip(stream, budget), budget, links)
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return archive_zip.entries(stream, budget, links)
    for magic, name in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise BadArchive("unsupported_compression", f"{name} is not supported: send tar, tar.gz or zip")
    if len(start) < archive_tar.BLOCK or not archive_tar.looks_like_tar(start):
        raise BadArchive("bad_archive", "neither tar, tar.gz nor zip")
    return archive_tar.entries(stream, budget, links)


def _write_tree(
    entries: Iterable[tuple[Entry, Iterator[bytes]]],
    destination: Path,
    budget: Budget,
    given: tuple[int, int] | None,
    keep: Keep | None,
) -> Unpacked:
    names = Names(budget)
    later: list[Entry] = []
    root = os.fspath(destination)
    for entry, content in entries:
        owner = _owner(entry, given, keep)
        parents = names.add(entry)
        if entry.kind == "directory":
            parents = [*parents, entry.name]
        for parent in parents:
            with contextlib.suppress(FileExistsError):  # a directory named twice
                Path(root, parent).mkdir(0o755)
                _own(f"{root}/{parent}", owner)
        if entry.kind == "file":
            mode = (0o755 if entry.executable else 0o644) if keep is None else entry.mode & 0o777
            _write_file(f"{root}/{entry.name}", entry, content, owner, mode)
        elif entry.kind != "directory" or keep is not None:
            later.append(entry)
    for entry in later:
        if entry.kind != "directory":
            _make_link(root, entry, _owner(entry, given, keep))
    for entry in sorted(later, key=lambda entry: entry.name, reverse=True):
        if entry.kind == "directory":  # what is below it is settled before it may be closed to us
            _settle_directory(f"{root}/{entry.name}", entry)
    if not names.kinds and keep is None:
        raise BadArchive("empty_archive", "there is nothing in the archive")
    return Unpacked(budget.files, budget.bytes)


def _owner(entry: Entry, given: tuple[int, int] | None, keep: Keep | None) -> tuple[int, int] | None:
    return given if keep is None or keep.owner_of is None else keep.owner_of(entry.uid, entry.gid)


def _settle_directory(path: str, entry: Entry) -> None:
    os.chmod(path, entry.mode & 0o777)  # noqa: PTH101 - a string, as everywhere here
    moment = min(max(entry.mtime, _EARLIEST), int(time.time()))
    os.utime(path, (moment, moment))


def _write_file(path: str, entry: Entry, content: Iterator[bytes], owner: tuple[int, int] | None, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for piece in content:
            file.write(piece)
        if owner:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        moment = min(max(entry.mtime, _EARLIEST), int(time.time()))
        os.utime(descriptor, (moment, moment))


def _make_link(root: str, entry: Entry, owner: tuple[int, int] | None) -> None:
    path = f"{root}/{entry.name}"
    if entry.kind == "hardlink":
        os.link(f"{root}/{entry.target}", path, follow_symlinks=False)
    else:
        Path(path).symlink_to(entry.target)
        _own(path, owner)


def _own(path: str, owner: tuple[int, int] | None) -> None:
    if owner:
        os.chown(path, *owner, follow_symlinks=False)


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _tar_pieces(tree: Path, budget: Budget, links: Links, alias: str) -> Iterator[bytes]:
    for name, status in _walk(os.fspath(tree), ""):
        clean = clean_name(name, budget.limits)
        if clean != name:
            raise BadArchive("bad_name", "a name that cannot be packed", name)
        budget.add_file(name)
        info = tarfile.TarInfo(name)
        info.mode = 0o755
        if stat.S_ISDIR(status.st_mode):
            info.type = tarfile.DIRTYPE
            yield _header(info)
        elif stat.S_ISLNK(status.st_mode):
            info.type = tarfile.SYMTYPE
            info.linkname = _inside(name, str((tree / name).readlink()), alias)
            check_symlink(name, info.linkname, links)
            yield _header(info)
        elif stat.S_ISREG(status.st_mode):
            yield from _file_pieces(tree / name, name, info, budget)
        else:
            raise BadArchive("device", "the built tree holds a device, pipe or socket", name)
    yield bytes(2 * archive_tar.BLOCK)


def _walk(root: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(f"{root}/{name}" if name else root) as found:
        below = sorted((entry.name for entry in found), key=os.fsencode)
    for part in below:
        path = f"{name}/{part}" if name else part
        status = os.lstat(f"{root}/{path}")
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(root, path)


def _file_pieces(path: Path, name: str, info: tarfile.TarInfo, budget: Budget) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadArchive("device", "the built tree changes while it is packed", name)
        budget.check_size(status.st_size, name)
        info.size = status.st_size
        info.mode = 0o755 if status.st_mode & 0o100 else 0o644
        info.mtime = min(max(int(status.st_mtime), _EARLIEST), 8**11 - 1)
        yield _header(info)
        left = info.size
        while left:
            piece = file.read(min(left, _CHUNK))
            if not piece:
                raise BadArchive("truncated", "the built tree changes while it is packed", name)
            left -= len(piece)
            budget.add_bytes(len(piece), name)
            yield piece
    yield bytes(-info.size % archive_tar.BLOCK)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _inside(name: str, target: str, alias: str) -> str:
    """An absolute link into the tree's place while building, as a relative one; any other target as it is."""
    plain = posixpath.normpath(target)
    if plain != alias and not plain.startswith(alias + "/"):
        return target
    inner = plain[len(alias) :].lstrip("/")
    return posixpath.relpath(inner or ".", posixpath.dirname(name) or ".")

"""Reads tar and tar.gz as a stream, trusting nothing in it.

Owns the format: headers, numbers, long names, pax records, gzip members. Names, links and amounts are judged by
archive_model; nothing is written here. Python's own reader is not used: before 3.11.14 it hangs on negative sizes,
and its filters were bypassed more than once.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from sandbox.archive_model import BadArchive, Budget, Entry, Links, check_symlink, clean_name, decode

BLOCK = 512
CHUNK = 256 * 1024
_META_BYTES = 1024 * 1024  # of one pax header or long name
_META_IN_A_ROW = 8
_TAIL_BYTES = 1024 * 1024  # zeros that may follow the end
_OCTAL = re.compile(rb"[0-7]*\Z")
_FILES = (b"0", b"\0", b"7")
_META = (b"L", b"K", b"x", b"X", b"g")
_DEVICES = (b"3", b"4", b"6")


class Source(Protocol):
    """Where bytes come from; fewer than asked for only at the end."""

    def read(self, size: int) -> bytes: ...


class Gunzip:
    """A gzip stream (several members allowed) that never unpacks more than it is asked for."""

    def __init__(self, stream: BinaryIO, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._inflate = zlib.decompressobj(wbits=31)
        self._packed = 0
        self._unpacked = 0
        self._waiting = b""

    def read(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size > 0:
            piece = self._some(size)
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _some(self, size: int) -> bytes:
        while True:
            if not self._waiting:
                self._waiting = self._stream.read(64 * 1024)
                self._packed += len(self._waiting)
            if self._inflate.eof and not self._next_member():
                return b""
            at_end = not self._waiting
            try:
                piece = self._inflate.decompress(self._waiting, size)
            except zlib.error as error:
                raise BadArchive("bad_gzip", "the gzip stream is damaged") from error
            self._waiting = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            self._unpacked += len(piece)
            self._budget.check_ratio(self._unpacked, self._packed)
            if piece:
                return piece
            if at_end and not self._inflate.eof:
                raise BadArchive("truncated", "the gzip stream ends too early")

    def _next_member(self) -> bool:
        # Zeros after the last member are padding; anything else must be another member.
        self._waiting = self._waiting.lstrip(b"\0")
        if not self._waiting:
            self._waiting = self._stream.read(64 * 1024).lstrip(b"\0")
            self._packed += len(self._waiting)
        if not self._waiting:
            return False
        self._inflate = zlib.decompressobj(wbits=31)
        return True


@dataclass(slots=True)
class _Pending:
    """What pax headers and long names say about the entry that follows them."""

    records: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    target: str | None = None
    headers: int = 0


def entries(source: Source, budget: Budget, links: Links) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each member with its content; content that the caller leaves is skipped."""
    pending = _Pending()
    while True:
        header = source.read(BLOCK)
        if len(header) < BLOCK:
            raise BadArchive("truncated", "the archive ends without an end mark")
        if not header.strip(b"\0"):
            break
        _check_sum(header)
        type_flag = header[156:157]
        if type_flag in _META:
            _read_meta(source, header, type_flag, pending, budget)
            continue
        budget.add_header()
        entry = _entry(header, type_flag, pending, budget, links)
        pending = _Pending()
        content = _content(source, entry, budget)
        if entry.name:
            yield entry, content
        for _ in content:
            pass
    if pending.headers:
        raise BadArchive("bad_pax", "extended headers without an entry after them")
    _check_tail(source)


def _entry(header: bytes, type_flag: bytes, pending: _Pending, budget: Budget, links: Links) -> Entry:
    raw = _raw_name(header, pending)
    name = clean_name(raw, budget.limits)
    mode = _number(header[100:108], "mode")
    size = _size(header, pending)
    kind_file = type_flag in _FILES and not (type_flag != b"7" and raw.endswith("/"))
    if type_flag in _DEVICES:
        raise BadArchive("device", "devices and pipes are refused", raw)
    if type_flag == b"S":
        raise BadArchive("sparse", "sparse files are refused", raw)
    if not (kind_file or type_flag in _FILES or type_flag in (b"1", b"2", b"5")):
        raise BadArchive("unsupported_type", f"entry type {type_flag!r} is not supported", raw)
    budget.check_size(size, raw)
    if not kind_file and size:
        raise BadArchive("bad_size", "a link or directory with content", raw)
    mtime = _mtime(header)
    uid, gid = _owner(header[108:116], pending, "uid"), _owner(header[116:124], pending, "gid")
    if kind_file:
        _check_file(name, raw, mode)
        return Entry("file", name, size, bool(mode & 0o100), mtime, mode=mode, uid=uid, gid=gid)
    if type_flag == b"2":
        target = _raw_target(header, pending)
        _check_root(name, raw)
        check_symlink(name, target, links)
        return Entry("symlink", name, target=target, mtime=mtime, uid=uid, gid=gid)
    if type_flag == b"1":
        _check_root(name, raw)
        return Entry("hardlink", name, target=_hard_target(_raw_target(header, pending), raw, budget), mtime=mtime)
    return Entry("directory", name, mtime=mtime, mode=mode, uid=uid, gid=gid)


def _check_file(name: str, raw: str, mode: int) -> None:
    _check_root(name, raw)
    if mode & 0o6000:
        raise BadArchive("setuid", "setuid and setgid files are refused", raw)


def _check_root(name: str, raw: str) -> None:
    if not name:
        raise BadArchive("bad_name", "only a directory may be the root", raw)


def _hard_target(target: str, raw: str, budget: Budget) -> str:
    try:
        return clean_name(target, budget.limits)
    except BadArchive as error:
        if error.code in ("absolute_path", "path_traversal"):
            raise BadArchive("hard_link_escape", "the hard link names a file outside", raw) from error
        raise


def _raw_name(header: bytes, pending: _Pending) -> str:
    given = pending.records.get("path")
    if given is not None and pending.name is not None:
        raise BadArchive("bad_pax", "two extended names for one entry", given)
    if given is not None or pending.name is not None:
        return given if given is not None else pending.name or ""
    name = _text(header[0:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return decode(prefix + b"/" + name if prefix else name)


def _raw_target(header: bytes, pending: _Pending) -> str:
    given = pending.records.get("linkpath")
    if given is not None:
        return given
    return pending.target if pending.target is not None else decode(_text(header[157:257]))


def _size(header: bytes, pending: _Pending) -> int:
    given = pending.records.get("size")
    if given is None:
        return _number(header[124:136], "size")
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise BadArchive("bad_size", "a pax size that is no number")
    return int(given)


def _owner(raw: bytes, pending: _Pending, key: str) -> int:
    """A number that cannot be read is not worth a refusal: mostly nobody wants it."""
    given = pending.records.get(key, "")
    if given.isascii() and given.isdigit() and len(given) <= 10:
        return int(given)
    try:
        return _number(raw, key)
    except BadArchive:
        return 0


def _mtime(header: bytes) -> int:
    try:
        return _number(header[136:148], "time")
    except BadArchive:
        return 0  # a time is not worth a refusal


def _content(source: Source, entry: Entry, budget: Budget) -> Iterator[bytes]:
    left = entry.size
    while left:
        piece = source.read(min(left, CHUNK))
        if not piece:
            raise BadArchive("truncated", "the archive ends in the middle of a file", entry.name)
        left -= len(piece)
        budget.add_bytes(len(piece), entry.name)
        yield piece
    padding = -entry.size % BLOCK
    if len(source.read(padding)) < padding:
        raise BadArchive("truncated", "the archive ends in the middle of a file", entry.name)


def _read_meta(source: Source, header: bytes, type_flag: bytes, pending: _Pending, budget: Budget) -> None:
    pending.headers += 1
    if pending.headers > _META_IN_A_ROW:
        raise BadArchive("bad_pax", "too many extended headers in a row")
    size = _number(header[124:136], "size")
    if not 0 <= size <= _META_BYTES:
        raise BadArchive("bad_pax", f"an extended header of more than {_META_BYTES} bytes")
    budget.add_header(size)
    data = source.read(size + (-size % BLOCK))
    if len(data) < size + (-size % BLOCK):
        raise BadArchive("truncated", "the archive ends in the middle of a header")
    data = data[:size]
    if type_flag == b"L":
        pending.name = _once(pending.name, decode(data.rstrip(b"\0")))
    elif type_flag == b"K":
        pending.target = _once(pending.target, decode(data.rstrip(b"\0")))
    else:
        records = parse_pax(data)
        if type_flag == b"g":
            pending.headers -= 1  # it belongs to no entry, and may stand alone at the end
            if records:
                raise BadArchive("bad_pax", "a global header that renames or resizes every entry")
        elif records.keys() & pending.records.keys():
            raise BadArchive("bad_pax", "two extended headers for one entry that disagree")
        else:
            pending.records.update(records)


def parse_pax(data: bytes) -> dict[str, str]:
    """The records that we act upon. Strict: lengths must fit exactly, keys must be unique."""
    found: dict[str, str] = {}
    seen: set[bytes] = set()
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 12)
        length_text = data[position:space] if space > 0 else b""
        if not length_text.isdigit():
            raise BadArchive("bad_pax", "a record without a length")
        end = position + int(length_text)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise BadArchive("bad_pax", "a record whose length does not fit")
        if key in seen:
            raise BadArchive("bad_pax", "a key that appears twice")
        seen.add(key)
        if key.startswith(b"GNU.sparse"):
            raise BadArchive("sparse", "sparse files are refused")
        if key == b"hdrcharset" and value not in (b"BINARY", b"ISO-IR 10646 2000 UTF-8"):
            raise BadArchive("bad_pax", "a character set other than UTF-8")
        if key in (b"path", b"linkpath", b"size", b"uid", b"gid"):
            found[key.decode("ascii")] = decode(value)
        position = end
    return found


def _once(known: str | None, new: str) -> str:
    if known is not None:
        raise BadArchive("bad_pax", "two long names for one entry", new)
    return new


def _number(raw: bytes, what: str) -> int:
    if raw[0] & 0x80:  # base-256, for what does not fit in octal; 0xff starts a negative number
        if raw[0] != 0x80:
            raise BadArchive("bad_size", f"negative {what}")
        return int.from_bytes(raw[1:], "big")
    digits = raw.split(b"\0", 1)[0].strip(b" ")
    if not _OCTAL.match(digits):
        raise BadArchive("bad_size", f"a {what} that is no number")
    return int(digits or b"0", 8)


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def looks_like_tar(block: bytes) -> bool:
    """Whether a first block is a tar's: by its mark, by its checksum, or because it is the end of an empty one."""
    return block[257:262] == b"ustar" or _sum_fits(block) or not block.strip(b"\0")


def _check_sum(header: bytes) -> None:
    if not _sum_fits(header):
        raise BadArchive("bad_checksum", "a header whose checksum is wrong")


def _sum_fits(header: bytes) -> bool:
    blanked = header[:148] + b" " * 8 + header[156:]
    digits = header[148:156].split(b"\0", 1)[0].strip(b" ")
    stated = int(digits, 8) if digits and _OCTAL.match(digits) else -1
    signed = sum(byte - 256 if byte > 127 else byte for byte in blanked)
    return stated in (sum(blanked), signed)


def _check_tail(source: Source) -> None:
    left = _TAIL_BYTES
    while piece := source.read(min(CHUNK, left)):
        if piece.strip(b"\0"):
            raise BadArchive("trailing_data", "something follows the end of the archive")
        left -= len(piece)
        if left <= 0:
            raise BadArchive("trailing_data", "too much padding after the end of the archive")

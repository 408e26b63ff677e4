"""Reads zip files, trusting nothing in them.

Owns the format: the directory at the end, local headers, inflating. Names, links and amounts are judged by
archive_model; nothing is written here. Python's own reader is not used: it accepts entries that overlap (one
packed byte counted a thousand times) and local headers that disagree with the directory.
"""

from __future__ import annotations

import calendar
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sandbox.archive_model import NAME_BYTES, BadArchive, Budget, Entry, Links, check_symlink, clean_name, decode

CHUNK = 256 * 1024
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DIRECTORY_BYTES = 64 * 1024 * 1024
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_LENGTHS_FOLLOW = 0x0008
_UTF8 = 0x0800
_UNIX_SYSTEMS = (3, 19)
_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True, slots=True)
class _Record:
    """One entry of the directory at the end."""

    raw_name: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int
    mtime: int


def entries(stream: BinaryIO, budget: Budget, links: Links) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Each member with its content, in the order of the directory."""
    start, size, count = _find_directory(stream)
    if count > budget.limits.files:
        raise BadArchive("too_many_files", f"more than {budget.limits.files} files and directories")
    records = _read_directory(stream, start, size, count)
    starts = _check_layout(stream, records, start)
    if sum(record.size for record in records) > budget.limits.bytes:
        raise BadArchive("too_many_bytes", f"more than {budget.limits.bytes} bytes unpacked")
    for record, data_start in zip(records, starts, strict=True):
        budget.add_header()
        entry = _entry(stream, record, data_start, budget, links)
        if entry.name:
            yield entry, _content(stream, record, data_start, budget) if entry.kind == "file" else iter(())


def _find_directory(stream: BinaryIO) -> tuple[int, int, int]:
    """Start, size and number of entries of the directory, which must end where the end record begins."""
    total = stream.seek(0, 2)
    tail_start = max(0, total - _END.size - 0xFFFF)
    stream.seek(tail_start)
    tail = stream.read()
    position = tail.rfind(b"PK\5\6")
    while position >= 0:
        if len(tail) - position >= _END.size:
            fields = _END.unpack_from(tail, position)
            if position + _END.size + fields[7] == len(tail):
                return _directory_place(stream, tail_start + position, fields)
        position = tail.rfind(b"PK\5\6", 0, position)
    raise BadArchive("truncated", "the zip has no directory at its end")


def _directory_place(stream: BinaryIO, end: int, fields: tuple[int, ...]) -> tuple[int, int, int]:
    _, disk, directory_disk, here, count, size, start, _ = fields
    if _FULL32 in (size, start) or _FULL16 in (count, here):
        end, here, count, size, start = _zip64(stream, end)
        disk = directory_disk = 0
    if disk or directory_disk or here != count:
        raise BadArchive("bad_zip", "zips in several parts are refused")
    if start + size != end:
        raise BadArchive("bad_zip", "the directory is not where the end record says")
    if size > _DIRECTORY_BYTES or count * _CENTRAL.size > size:
        raise BadArchive("bad_zip", "a directory of an impossible size")
    return start, size, count


def _zip64(stream: BinaryIO, end: int) -> tuple[int, int, int, int, int]:
    locator_at = end - _LOCATOR64.size
    signature, _, at, _ = _LOCATOR64.unpack(_exactly(stream, locator_at, _LOCATOR64.size))
    if signature != b"PK\6\7" or at + _END64.size > locator_at:
        raise BadArchive("bad_zip", "the zip64 record is missing")
    record = _END64.unpack(_exactly(stream, at, _END64.size))
    if record[0] != b"PK\6\6" or record[4] or record[5]:
        raise BadArchive("bad_zip", "the zip64 record is damaged")
    return at, record[6], record[7], record[8], record[9]


def _read_directory(stream: BinaryIO, start: int, size: int, count: int) -> list[_Record]:
    data = _exactly(stream, start, size)
    records: list[_Record] = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > size:
            raise BadArchive("bad_zip", "the directory ends too early")
        record, position = _read_record(data, position)
        records.append(record)
    if position != size:
        raise BadArchive("bad_zip", "the directory holds more than it says")
    return records


def _read_record(data: bytes, position: int) -> tuple[_Record, int]:
    fields = _CENTRAL.unpack_from(data, position)
    signature, made_by, _, flags, method, time, date, crc, packed, size = fields[:10]
    name_length, extra_length, comment_length, _, _, attributes, offset = fields[10:]
    if signature != b"PK\1\2":
        raise BadArchive("bad_zip", "the directory is damaged")
    name_end = position + _CENTRAL.size + name_length
    end = name_end + extra_length + comment_length
    if end > len(data):
        raise BadArchive("bad_zip", "the directory ends too early")
    raw = data[position + _CENTRAL.size : name_end]
    size, packed, offset = _wide(data[name_end : name_end + extra_length], size, packed, offset)
    mode = attributes >> 16 if made_by >> 8 in _UNIX_SYSTEMS else 0
    name = _name(raw, flags)
    return _Record(raw, name, flags, method, crc, packed, size, offset, mode, _time(date, time)), end


def _wide(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes above 32 bits stand in the zip64 extra field, those that are needed only, in this order."""
    values = [size, packed, offset]
    if _FULL32 not in values:
        return size, packed, offset
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
            for number, value in enumerate(values):
                if value == _FULL32:
                    if len(wide) < 8:
                        raise BadArchive("bad_zip", "the zip64 field is too short")
                    values[number], wide = int.from_bytes(wide[:8], "little"), wide[8:]
            return values[0], values[1], values[2]
        position += 4 + length
    raise BadArchive("bad_zip", "the zip64 field is missing")


def _name(raw: bytes, flags: int) -> str:
    if flags & _UTF8 or raw.isascii():
        return decode(raw)
    # Many tools write UTF-8 without saying so; the old code page is the only other reading.
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _check_layout(stream: BinaryIO, records: list[_Record], directory: int) -> list[int]:
    """Where each entry's data starts; refuses entries that overlap, or whose two headers disagree."""
    starts = [_local_data_start(stream, record) for record in records]
    spans = sorted((record.offset, start + record.packed) for record, start in zip(records, starts, strict=True))
    reached = 0
    for begin, end in spans:
        if begin < reached or end > directory:
            raise BadArchive("overlapping_entries", "entries share the same bytes")
        reached = end
    return starts


def _local_data_start(stream: BinaryIO, record: _Record) -> int:
    fields = _LOCAL.unpack(_exactly(stream, record.offset, _LOCAL.size))
    signature, _, flags, method, _, _, _, packed, size, name_length, extra_length = fields
    if signature != b"PK\3\4":
        raise BadArchive("bad_zip", "an entry without a header", record.name)
    if _exactly(stream, record.offset + _LOCAL.size, name_length) != record.raw_name or method != record.method:
        raise BadArchive("bad_zip", "two headers of one entry disagree", record.name)
    if (flags ^ record.flags) & (_ENCRYPTED | _LENGTHS_FOLLOW):
        raise BadArchive("bad_zip", "two headers of one entry disagree", record.name)
    known = not flags & _LENGTHS_FOLLOW and _FULL32 not in (packed, size)
    if known and (packed != record.packed or size != record.size):
        raise BadArchive("bad_zip", "two headers of one entry disagree", record.name)
    return record.offset + _LOCAL.size + int(name_length) + int(extra_length)


def _entry(stream: BinaryIO, record: _Record, data_start: int, budget: Budget, links: Links) -> Entry:
    name = clean_name(record.name, budget.limits, windows=True)
    if record.flags & _ENCRYPTED:
        raise BadArchive("encrypted", "encrypted entries are refused", record.name)
    if record.method not in (_STORED, _DEFLATED):
        raise BadArchive("unsupported_compression", f"method {record.method} is not supported", record.name)
    if record.method == _STORED and record.packed != record.size:
        raise BadArchive("bad_size", "a stored entry whose sizes differ", record.name)
    kind = stat.S_IFMT(record.mode)
    budget.check_size(record.size, record.name)
    budget.check_ratio(record.size, record.packed, record.name)
    if record.name.endswith("/") or kind == stat.S_IFDIR:
        if record.size:
            raise BadArchive("bad_size", "a directory with content", record.name)
        return Entry("directory", name)
    if not name:
        raise BadArchive("bad_name", "only a directory may be the root", record.name)
    if kind == stat.S_IFLNK:
        return _symlink(stream, record, data_start, name, budget, links)
    if kind not in (0, stat.S_IFREG):
        raise BadArchive("device", "devices, pipes and sockets are refused", record.name)
    if record.mode & 0o6000:
        raise BadArchive("setuid", "setuid and setgid files are refused", record.name)
    return Entry("file", name, record.size, bool(record.mode & 0o100), record.mtime)


def _symlink(stream: BinaryIO, record: _Record, data_start: int, name: str, budget: Budget, links: Links) -> Entry:
    if record.size > NAME_BYTES:
        raise BadArchive("name_too_long", f"a link target of more than {NAME_BYTES} bytes", record.name)
    target = decode(b"".join(_content(stream, record, data_start, budget)))
    check_symlink(name, target, links)
    return Entry("symlink", name, target=target, mtime=record.mtime)


def _content(stream: BinaryIO, record: _Record, data_start: int, budget: Budget) -> Iterator[bytes]:
    pieces = _stored(stream, record, data_start) if record.method == _STORED else _inflated(stream, record, data_start)
    crc = size = 0
    for piece in pieces:
        size += len(piece)
        if size > record.size:
            raise BadArchive("bad_size", "more content than the header says", record.name)
        crc = zlib.crc32(piece, crc)
        budget.add_bytes(len(piece), record.name)
        yield piece
    if size != record.size:
        raise BadArchive("bad_size", "less content than the header says", record.name)
    if crc != record.crc:
        raise BadArchive("bad_checksum", "the content does not match its checksum", record.name)


def _stored(stream: BinaryIO, record: _Record, position: int) -> Iterator[bytes]:
    left = record.packed
    while left:
        piece = _exactly(stream, position, min(left, CHUNK))
        position += len(piece)
        left -= len(piece)
        yield piece


def _inflated(stream: BinaryIO, record: _Record, position: int) -> Iterator[bytes]:
    inflate = zlib.decompressobj(wbits=-15)
    try:
        for packed in _stored(stream, record, position):
            waiting = packed
            while waiting and not inflate.eof:
                yield inflate.decompress(waiting, CHUNK)
                waiting = inflate.unconsumed_tail
        while not inflate.eof and (piece := inflate.decompress(inflate.unconsumed_tail, CHUNK)):
            yield piece
    except zlib.error as error:
        raise BadArchive("bad_zip", "the packed content is damaged", record.name) from error
    if not inflate.eof or inflate.unused_data:
        raise BadArchive("bad_zip", "the packed content does not end where it should", record.name)


def _exactly(stream: BinaryIO, position: int, size: int) -> bytes:
    if position < 0:
        raise BadArchive("bad_zip", "an offset before the start")
    stream.seek(position)
    data = stream.read(size)
    if len(data) < size:
        raise BadArchive("truncated", "the zip ends too early")
    return data


def _time(date: int, time: int) -> int:
    parts = (1980 + (date >> 9), date >> 5 & 15, date & 31, time >> 11, time >> 5 & 63, (time & 31) * 2)
    try:
        return calendar.timegm((*parts, 0, 0, 0))
    except (ValueError, OverflowError):
        return 0  # a time is not worth a refusal

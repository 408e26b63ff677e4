"""Uploads: streamed to disk while they are hashed, never whole in memory.

Owns the temporary file from the first byte until Django's view takes it over. Raw bodies and multipart forms; a file
of an upload that failed is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from omni.front.requests import ClientGone, ClientIdle, Request
from omni.kernel.errors import InvalidInput, Malformed, OmniError, StorageFull, TooLarge, UnsupportedMedia

ROUTES = re.compile(
    r"(POST) /app/[^/]+/release/[^/]+/upload|(PUT) /internal/packages/[0-9a-f]{64}|(PUT) /agent/snapshots/[0-9]+"
)
_SNAPSHOTS, _COPIES = "/agent/snapshots/", "/internal/copies/"
FORM = "multipart/form-data"
FILE_PARTS = ("file", "media", "upload")
SHOWN_MEDIA_TYPES = ("application/gzip", "application/zip", "application/x-tar")
MEDIA_TYPES = (*SHOWN_MEDIA_TYPES, "application/x-gzip", "application/x-zip-compressed", "application/json")
_BATCH = 1 << 20
_FIELD_MAX = 4096
_LOOK_BYTES = 64 << 20  # how far a body may grow between two looks at the disk
_ABANDONED_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Upload:
    """A body on disk: fsynced, hashed. `fields` are the other parts of a form."""

    path: Path
    sha256: str
    size: int
    media_type: str
    fields: dict[str, str] = field(default_factory=dict)


def is_upload(request: Request) -> bool:
    return ROUTES.fullmatch(f"{request.method} {request.path}") is not None


class _File:
    """The file being written, on threads of its own: hashing and writing never hold up the event loop."""

    def __init__(self, path: Path, limit: int, check_room: Callable[[Path], None]) -> None:
        self._path, self._limit, self._check_room = path, limit, check_room
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self.size = 0
        self._look_at = _LOOK_BYTES

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self.size > self._limit:
            raise TooLarge(f"An upload may have {self._limit} bytes.", code="upload_too_large")
        if self.size >= self._look_at:
            self._look_at = self.size + _LOOK_BYTES
            self._check_room(self._path.parent)
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class _Form:
    """A multipart form: the one file part goes to the file, small parts become fields."""

    def __init__(self, boundary: bytes, sink: _File) -> None:
        self._sink = sink
        self.fields: dict[str, str] = {}
        self.media_type = ""
        self.has_file = False
        self.ended = False
        self._name, self._header, self._value = "", b"", b""
        self._headers: dict[str, bytes] = {}
        self._field = b""
        self._is_file = False
        callbacks: dict[str, Callable[..., Any]] = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_end": self._on_form_end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def write(self, data: bytes) -> None:
        self._parser.write(data)

    def _begin(self) -> None:
        self._headers, self._field, self._header, self._value = {}, b"", b"", b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = self._value
        self._header, self._value = b"", b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name in FILE_PARTS
        if self._is_file:
            if self.has_file:
                raise Malformed("The form has more than one file.", code="too_many_files")
            self.has_file = True
            self.media_type = self._headers.get("content-type", b"").decode("latin-1").partition(";")[0].strip()

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._sink.write(memoryview(data)[start:end])
        else:
            self._field += data[start:end]
            if len(self._field) > _FIELD_MAX:
                raise TooLarge(f"The form's field {self._name} is too long.")

    def _end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._field.decode("utf-8", "replace")

    def _on_form_end(self) -> None:
        self.ended = True


@dataclass(slots=True)
class Intake:
    """`folder` lies on the artifact store's file system, so that taking over is a rename.

    `limit` is of what users upload; a worker's package may be as large as a build's tree (`package_limit`), the
    archive of a snapshot as large as a volume (`snapshot_limit`), a copy as large as either. `check_room` is asked of
    the folder now and then while a body comes, and may raise.
    """

    folder: Path
    limit: int
    idle_s: float
    package_limit: int | None = None
    snapshot_limit: int = 0
    check_room: Callable[[Path], None] = lambda _: None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, thread_name_prefix="intake"))

    def sweep(self) -> None:
        """Remove what a killed process left. No upload lasts a day, so none of another member's is met."""
        for left in self.folder.glob("*.part"):
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < time.time() - _ABANDONED_S:
                    left.unlink()

    async def receive(self, request: Request) -> Upload:
        """The upload on disk. Raises TooLarge, Malformed, UnsupportedMedia, StorageFull; nothing is left then."""
        kind, boundary = self.check(request)

        async def fill(sink: _File) -> Upload:
            if kind == FORM:
                return await self._form(request, sink, boundary)
            await self._pump(request, sink.write)
            return await self._finish(sink, kind, {})

        return await self._into_file(fill, self._limit_of(request))

    async def keep(self, chunks: AsyncIterator[bytes]) -> Upload:
        """The same for bytes that come from another host. Raises what `chunks` raises too."""

        async def fill(sink: _File) -> Upload:
            await self._write(chunks, sink.write)
            return await self._finish(sink, "", {})

        return await self._into_file(fill, self._most)

    async def _into_file(self, fill: Callable[[_File], Awaitable[Upload]], limit: int) -> Upload:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sink = _File(self.folder / f"{secrets.token_hex(16)}.part", limit, self.check_room)
        except OSError as error:
            raise _storage(error) from error
        try:
            return await fill(sink)
        except OSError as error:
            sink.discard()
            raise _storage(error) from error
        except BaseException:
            sink.discard()
            raise

    def check(self, request: Request) -> tuple[str, bytes]:
        """The body's media type, and a form's boundary. Refuses what the headers alone show to be wrong."""
        announced = request.headers.get("content-length", "")
        limit = self._limit_of(request)
        if announced.isdigit() and int(announced) > limit + 65536:
            raise TooLarge(f"An upload may have {limit} bytes.", code="upload_too_large")
        media_type, options = parse_options_header(request.headers.get("content-type", ""))
        kind, boundary = media_type.decode("latin-1").lower(), options.get(b"boundary", b"")
        if kind == FORM and not boundary:
            raise Malformed("The form has no boundary.", code="malformed_form")
        if kind != FORM and kind not in MEDIA_TYPES:
            raise UnsupportedMedia(f"Send a form, or one of {', '.join(SHOWN_MEDIA_TYPES)}.")
        return kind, boundary

    @property
    def _most(self) -> int:
        return max(self.limit, self.package_limit or 0, self.snapshot_limit)

    def _limit_of(self, request: Request) -> int:
        if request.path.startswith(_SNAPSHOTS):
            return self.snapshot_limit
        if request.path.startswith(_COPIES):
            return self._most
        return self.limit if self.package_limit is None or request.method != "PUT" else self.package_limit

    async def _form(self, request: Request, sink: _File, boundary: bytes) -> Upload:
        try:
            form = _Form(boundary, sink)
            await self._pump(request, form.write)
        except (FormParserError, LookupError, UnicodeError) as error:
            raise Malformed(f"The form cannot be read: {error}.", code="malformed_form") from error
        if not form.has_file:
            raise InvalidInput(f"The form has no part named {', '.join(FILE_PARTS)}.", code="file_missing")
        if not form.ended:
            raise Malformed("The form ended too early.", code="truncated")
        return await self._finish(sink, form.media_type, form.fields)

    async def _pump(self, request: Request, write: Callable[[bytes], None]) -> None:
        try:
            total = await self._write(request.chunks(self.idle_s), write)
        except ClientGone:
            raise Malformed("The body ended before its announced length.", code="truncated") from None
        except ClientIdle:
            raise Malformed(f"Nothing came for {self.idle_s:g} s.", code="upload_idle") from None
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) != total:
            raise Malformed("The body ended before its announced length.", code="truncated")

    async def _write(self, chunks: AsyncIterator[bytes], write: Callable[[bytes], None]) -> int:
        """How many bytes there were."""
        loop = asyncio.get_running_loop()
        batch, size, total = [], 0, 0
        async for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            total += len(chunk)
            if size >= _BATCH:
                await loop.run_in_executor(self._pool, write, b"".join(batch))
                batch, size = [], 0
        await loop.run_in_executor(self._pool, write, b"".join(batch))
        return total

    async def _finish(self, sink: _File, media_type: str, fields: dict[str, str]) -> Upload:
        if sink.size == 0:
            raise Malformed("The upload is empty.", code="empty_upload")
        digest = await asyncio.get_running_loop().run_in_executor(self._pool, sink.finish)
        return Upload(sink._path, digest, sink.size, media_type, fields)


def _storage(error: OSError) -> OmniError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("There is no space left for uploads on this node.")
    return OmniError(f"The upload could not be stored: {os.strerror(error.errno or 0)}.", code="storage_error")

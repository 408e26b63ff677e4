"""The archive as a file: parts go in and out as streams, with their digests; whole under its name or not there.

Owns the zip container and the atomic write. A zip has its table of contents at the end, so that a file that broke off
is never mistaken for a backup. Knows nothing of what the parts mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from omni.backup import Refused, manifest
from omni.backup.manifest import Manifest

CHUNK = 1 << 20
_LEVEL = 1  # of deflate: log lines shrink to a fifth at a hundred megabytes a second


class Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class Counted:
    """Passes bytes on, counting and hashing them."""

    def __init__(self, out: Sink | None = None) -> None:
        self._out = out
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
        if self._out is not None:
            self._out.write(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class Writer:
    """An archive in the making, mode 0600, beside its place; `finish` fsyncs it and gives it its name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()  # of a process that had our number
        self._file = os.fdopen(os.open(self._temporary, flags, 0o600), "w+b")
        self._zip = zipfile.ZipFile(self._file, "w", allowZip64=True)

    @contextlib.contextmanager
    def part(self, name: str, *, deflate: bool = True) -> Iterator[Counted]:
        """Write one part; its size and digest are in what this yields."""
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
        info._compresslevel = _LEVEL  # type: ignore[attr-defined]
        info.external_attr = 0o600 << 16
        with self._zip.open(info, "w", force_zip64=True) as out:
            yield Counted(out)

    def finish(self, found: Manifest, cluster_secret: str) -> None:
        data = found.to_bytes()
        with self.part(manifest.NAME) as out:
            out.write(data)
        with self.part(manifest.MAC_NAME) as out:
            out.write(manifest.mac(data, cluster_secret).encode())
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)
        _sync_folder(self._path.parent)

    def abandon(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(ValueError, OSError):
            self._zip.close()
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class Reader:
    """A finished archive. Raises Refused for a file that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            self.manifest_bytes = self._zip.read(manifest.NAME)
        except FileNotFoundError as error:
            raise Refused(f"{path}: there is no such file") from error
        except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
            raise Refused(f"{path}: is no backup of ours, or only a part of one ({error})") from error
        self.manifest = manifest.read(self.manifest_bytes)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def open(self, name: str) -> IO[bytes]:
        """Raises Refused when the part is not there."""
        try:
            return self._zip.open(name)
        except KeyError as error:
            raise Refused(f"{self.path}: the part {name} is missing") from error

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def check(self, name: str, sha256: str, size: int) -> None:
        """Read a part through. Raises Refused when it is not what the manifest says."""
        counted = Counted()
        try:
            with self.open(name) as file:
                while chunk := file.read(CHUNK):
                    counted.write(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise Refused(f"{self.path}: the part {name} is damaged ({error})") from error
        if (counted.sha256, counted.size) != (sha256, size):
            raise Refused(f"{self.path}: the part {name} is damaged: its digest is not the manifest's")

    def authentic(self, cluster_secret: str) -> bool:
        """Whether the archive was made by the cluster whose secret this is, and changed by nobody since."""
        said = self.read(manifest.MAC_NAME).decode(errors="replace")
        return hmac.compare_digest(said, manifest.mac(self.manifest_bytes, cluster_secret))


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

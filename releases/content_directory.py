"""A directory of immutable files named by their sha256, as a Django storage.

Owns how a file gets there and survives a power cut: written beside its place, fsynced, renamed, the directory fsynced.
A file is whole under its name or not there. Knows nothing of artifacts, rows or uploads.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage

TEMPORARY = ".incoming-"  # what a file is called until it is whole; whatever is older than the grace is swept
_CHUNK = 1 << 20


class ContentDirectory(FileSystemStorage):
    """`save` replaces in one step: a name always holds the same bytes, so a repetition repairs a damaged file."""

    def __init__(self, location: Path) -> None:
        super().__init__(location=str(location), file_permissions_mode=0o600, directory_permissions_mode=0o700)

    @property
    def root(self) -> Path:
        return Path(self.location)

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name

    def _save(self, name: str, content: File[Any]) -> str:
        place = Path(self.path(name))
        _make_directory(place.parent)
        given = getattr(content, "temporary_file_path", None)
        if callable(given) and _same_device(Path(given()), place.parent):
            _settle(Path(given()), place, getattr(content, "stored_at", None))
            return name
        temporary = place.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as out:
                content.seek(0)
                shutil.copyfileobj(content, out, _CHUNK)
            _settle(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
        return name

    def discard(self, name: str, unless_newer_than: dt.datetime) -> bool:
        """Delete the file, but not one that somebody has stored again since; True when it is gone.

        Taken aside first, so that nobody's fresh file is deleted between the look and the deletion.
        """
        place = Path(self.path(name))
        aside = place.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        try:
            if _stored_at(place) > unless_newer_than:
                return False
            place.rename(aside)
        except FileNotFoundError:
            return True
        if _stored_at(aside) > unless_newer_than:
            aside.rename(place)
            return False
        aside.unlink()
        return True

    def names(self) -> Iterator[str]:
        """Every stored file's name."""
        for folder in self._folders():
            if len(folder.name) == 2:
                for entry in os.scandir(folder):
                    if not entry.name.startswith("."):
                        yield f"{folder.name}/{entry.name}"

    def sweep(self, older_than: dt.datetime) -> int:
        """Delete temporary files that nobody has written to since: what a killed process left behind."""
        found = 0
        for folder in [self.root, *self._folders()]:
            for entry in list(os.scandir(folder)) if folder.is_dir() else []:
                leftover = entry.name.startswith(".") or len(folder.name) != 2
                if not leftover or not entry.is_file(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime < older_than.timestamp():
                        Path(entry.path).unlink()
                        found += 1
        return found

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return [Path(entry.path) for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)]


def _settle(temporary: Path, place: Path, stored_at: float | None = None) -> None:
    """Give a finished file its name, for good. Never answers before the disk has it."""
    with temporary.open("rb+") as file:
        _fsync(file)
    temporary.chmod(0o600)
    os.utime(temporary, None if stored_at is None else (stored_at, stored_at))  # what `discard` compares
    temporary.replace(place)
    _fsync_directory(place.parent)


def _stored_at(file: Path) -> dt.datetime:
    return dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC)


def _fsync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _fsync_directory(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle of a directory to flush
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_directory(folder: Path) -> None:
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _fsync_directory(folder.parent)


def _same_device(file: Path, folder: Path) -> bool:
    return file.stat().st_dev == folder.stat().st_dev

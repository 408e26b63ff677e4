"""The keys and tokens that live in files of the state directory, each readable by its owner only.

Owns making such a file (mode 0600, whole or not at all, one winner between processes) and reading it back; a file that
others may read is refused. Must not import Django, nor know what a key is used for (`keys` does).
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from omni.kernel.config import Config


class UnsafeSecretFile(Exception):
    """A secret's file is readable by others, empty, or no plain file; the message says how to mend it."""


def write(path: Path, text: str) -> None:
    """Put `text` and a newline into `path`, mode 0600; readers see the old content or the new, never a part."""
    temporary = _write_beside(path, text)
    temporary.replace(path)
    _sync_folder(path.parent)


def read_or_create(path: Path, make: Callable[[], str]) -> str:
    """What `path` holds, or, when there is no such file, what `make` answers, now stored there.

    Processes that come at the same time all get the one that was first. Raises UnsafeSecretFile.
    """
    try:
        return read(path)
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _write_beside(path, make())
    try:
        os.link(temporary, path)  # unlike rename, refuses when another process was first
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return read(path)


def read(path: Path) -> str:
    """The content of a secret's file without the last newline. Raises FileNotFoundError, UnsafeSecretFile."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnsafeSecretFile(f"{path}: cannot be read as a plain file of ours: {error.strerror}") from error
    with os.fdopen(descriptor, encoding="utf-8") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise UnsafeSecretFile(f"{path}: is no plain file; remove it")
        if sys.platform != "win32" and about.st_mode & 0o077:
            mode = stat.S_IMODE(about.st_mode)
            raise UnsafeSecretFile(f"{path}: others may read it (mode {mode:04o}); run: chmod 600 {path}")
        text = file.read().strip()
    if not text:
        raise UnsafeSecretFile(f"{path}: is empty; remove it, and a new one is made at the next start")
    return text


def ensure_keys(config: Config) -> None:
    """Make the key files that the configuration does not give. Several hosts share a given secret: no file there."""
    if config.several_hosts:
        return
    given = {
        "cluster.secret": config.secrets.cluster.get_secret_value(),
        "django.key": config.secrets.django.get_secret_value(),
        "master.key": config.secrets.master.get_secret_value(),
    }
    for name, value in given.items():
        if not value:
            read_or_create(config.state / name, lambda: secrets.token_hex(32))


def _write_beside(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

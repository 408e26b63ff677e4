"""Content-addressed storage of artifacts: uploads and the packages that builds make of them, under their sha256.

Owns where bytes lie (a directory by default, an S3-compatible bucket by configuration) behind Django's storage API.
Knows no rows: which artifacts are still wanted is `services`' business.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.core.files.base import File
from django.core.files.storage import Storage
from django.core.files.uploadedfile import TemporaryUploadedFile

from omni.kernel.config import Config
from omni.kernel.errors import InvalidInput, NotFound, OmniError, StorageFull
from releases.content_directory import ContentDirectory

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CHUNK = 1 << 20
_RESERVED_SHARE, _RESERVED_BYTES = 0.05, 1 << 30  # whichever is less


class Upload(Protocol):
    """A body that the front has streamed to disk and hashed (`omni.front.intake.Upload`)."""

    @property
    def path(self) -> Path: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...


class StorageError(OmniError):
    """The disk or the bucket failed; nothing was acknowledged."""

    status, code, title = 500, "storage_error", "The artifact store failed"


class ArtifactStore:
    """Bytes by their sha256, whichever way they are kept."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def put(self, upload: Upload, *, age_s: float = 0.0) -> None:
        """Keep an upload, durably, before this returns; its temporary file is used up. Raises StorageFull.

        `age_s`: a copy of what was stored elsewhere so long ago, and as old to `discard` as that.
        """
        self._save(upload.sha256, _Adopted(upload.path, time.time() - age_s))
        upload.path.unlink(missing_ok=True)

    def put_file(self, sha256: str, content: File[Any]) -> None:
        """Keep an open file under a digest that the caller has computed."""
        self._save(sha256, content)

    def open(self, sha256: str) -> File[Any]:
        """Raises NotFound."""
        try:
            return self.storage.open(key_of(sha256), "rb")
        except FileNotFoundError:
            raise NotFound("There is no such artifact.", code="artifact_missing") from None

    def path(self, sha256: str) -> Path | None:
        """Where the file lies on this host; None when the store is not a directory."""
        if not isinstance(self.storage, ContentDirectory):
            return None
        return Path(self.storage.path(key_of(sha256)))

    def exists(self, sha256: str) -> bool:
        return self.storage.exists(key_of(sha256))

    def size(self, sha256: str) -> int | None:
        """None when there is no such artifact."""
        key = key_of(sha256)
        return self.storage.size(key) if self.storage.exists(key) else None

    def verify(self, sha256: str) -> bool:
        """Read it all: whether the bytes are still those of the digest."""
        digest = hashlib.sha256()
        try:
            with self.open(sha256) as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except NotFound:
            return False
        return digest.hexdigest() == sha256

    def touch(self, sha256: str) -> bool:
        """Store again what is there already, for `discard` to see; False when it is not there."""
        path = self.path(sha256)
        try:
            if path is not None:
                os.utime(path)
        except FileNotFoundError:
            return False
        return path is not None or self.exists(sha256)

    def ages(self) -> dict[str, float]:
        """What lies in this host's directory, and since how many seconds; nothing for a bucket."""
        found = {digest: self.age(digest) for digest in self.local_digests()}
        return {digest: age for digest, age in found.items() if age is not None}

    def age(self, sha256: str) -> float | None:
        """For how many seconds it has been stored; None when it is not in this host's directory."""
        path = self.path(sha256)
        with contextlib.suppress(FileNotFoundError):
            if path is not None:
                return max(0.0, time.time() - path.stat().st_mtime)
        return None

    def delete(self, sha256: str) -> None:
        self.storage.delete(key_of(sha256))

    def discard(self, sha256: str, *, unless_newer_than: dt.datetime) -> bool:
        """Delete what no row wants any more, but not what was stored again after `unless_newer_than`."""
        key = key_of(sha256)
        if isinstance(self.storage, ContentDirectory):
            return self.storage.discard(key, unless_newer_than)
        if not self.storage.exists(key):
            return True
        if self.storage.get_modified_time(key) > unless_newer_than:
            return False
        self.storage.delete(key)
        return True

    def check_room(self) -> None:
        """Refuse early, before a body is read: the last of the disk belongs to the database. Raises StorageFull."""
        if not isinstance(self.storage, ContentDirectory) or not self.storage.root.is_dir():
            return
        check_disk(self.storage.root)

    def local_digests(self) -> Iterator[str]:
        """What lies in this host's directory; nothing for a bucket."""
        if isinstance(self.storage, ContentDirectory):
            for name in self.storage.names():
                digest = name.partition("/")[2]
                if _DIGEST.fullmatch(digest):
                    yield digest

    def sweep(self, older_than: dt.datetime) -> int:
        """Delete the temporary files of uploads that ended without a word; how many."""
        return self.storage.sweep(older_than) if isinstance(self.storage, ContentDirectory) else 0

    def _save(self, sha256: str, content: File[Any]) -> None:
        try:
            self.storage.save(key_of(sha256), content)
        except OSError as error:
            raise failure(error) from error


class _Adopted(TemporaryUploadedFile):
    """A temporary file that may be moved rather than copied."""

    def __init__(self, path: Path, stored_at: float) -> None:
        File.__init__(self, path.open("rb"), name=path.name)
        self._path = path
        self.stored_at = stored_at

    def temporary_file_path(self) -> str:
        return str(self._path)


def check_disk(place: Path) -> None:
    """The last of a disk belongs to the database. Raises StorageFull."""
    disk = shutil.disk_usage(place)
    if disk.free < min(disk.total * _RESERVED_SHARE, _RESERVED_BYTES):
        raise StorageFull("The node's disk is almost full; no upload is taken.", next="DELETE an app")


def failure(error: OSError) -> OmniError:
    """What the caller is told about a disk that refused."""
    if error.errno in _FULL:
        return StorageFull("The artifact store has no space left.", next="DELETE an app, or ask the operator")
    return StorageError(f"The artifact store failed: {error.strerror or type(error).__name__}.")


def key_of(sha256: str) -> str:
    """`<first two>/<all>`. Raises InvalidInput, so that no other path can ever be asked for."""
    if not _DIGEST.fullmatch(sha256):
        raise InvalidInput("A sha256 in lower-case hexadecimal digits is wanted.", code="bad_digest")
    return f"{sha256[:2]}/{sha256}"


def build_store(config: Config) -> ArtifactStore:
    """The store that the configuration describes."""
    given = config.artifacts
    if not given.s3_bucket:
        return ArtifactStore(ContentDirectory(config.artifacts_path))
    from storages.backends.s3 import S3Storage  # brings the SDK along, only where it is wanted

    return ArtifactStore(
        S3Storage(
            bucket_name=given.s3_bucket,
            location=given.s3_prefix,
            endpoint_url=given.s3_endpoint_url or None,
            region_name=given.s3_region or None,
            access_key=given.s3_access_key_id or None,
            secret_key=given.s3_secret_access_key.get_secret_value() or None,
            file_overwrite=True,
            default_acl=None,
        )
    )


@lru_cache(maxsize=1)
def store() -> ArtifactStore:
    """The store of this process."""
    return build_store(settings.CONFIG)

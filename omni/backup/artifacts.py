"""Artifacts into an archive and out of it, every byte against its digest.

Owns what happens when one is damaged or disappears while it is read. Where artifacts lie is the store's business: a
directory, a bucket, or another member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.files.base import File

from omni.backup import Refused
from omni.backup.archive import CHUNK, Reader, Writer
from omni.backup.manifest import ArtifactPart, Manifest
from omni.kernel.errors import OmniError
from releases import copies
from releases.models import Artifact
from releases.storage import store


class Artifacts:
    """The artifacts of one archive in the making."""

    def __init__(self, writer: Writer, say: Callable[[str], None], *, leave_out_damaged: bool) -> None:
        self._writer, self._say, self._leave_out_damaged = writer, say, leave_out_damaged
        self._held: set[str] = set()
        self._damaged: set[str] = set()
        self._wanted: dict[str, tuple[int, str]] = {}

    def add_all(self) -> None:
        """Everything that is wanted now. Raises Refused for what is damaged, unless that is to be left out."""
        for digest, (size, kind) in self._list().items():
            trouble = self._add(digest, size, kind)
            if trouble is None or not Artifact.objects.filter(pk=digest).exists():
                continue  # deleted since it was listed: nobody wants it any more
            if not self._leave_out_damaged:
                raise Refused(
                    f"artifact {digest} ({kind}) cannot be backed up: {trouble} Mend it (upload the version again), "
                    "or leave such artifacts out: --without-damaged"
                )
            self._damaged.add(digest)
            self._say(f"left out: artifact {digest} ({kind}): {trouble}")

    def add_new(self) -> bool:
        """Within a snapshot: what is new in it; False when one of them has gone already."""
        self._wanted = self._list()
        return all(self._add(digest, size, kind) is None for digest, (size, kind) in self._wanted.items())

    def parts(self) -> list[ArtifactPart]:
        """What the snapshot refers to."""
        return [
            ArtifactPart(sha256=digest, size=size, kind=kind, held=digest in self._held)
            for digest, (size, kind) in self._wanted.items()
        ]

    def _list(self) -> dict[str, tuple[int, str]]:
        rows = Artifact.objects.order_by("sha256").values_list("sha256", "size", "kind")
        return {sha256: (size, kind) for sha256, size, kind in rows}

    def _add(self, digest: str, size: int, kind: str) -> str | None:
        """What is wrong with it; None when it is in the archive, or known to be left out."""
        if digest in self._held or digest in self._damaged:
            return None
        try:
            with (
                store().open(digest) as file,
                self._writer.part(f"artifacts/{digest}", deflate=kind == "package") as out,
            ):
                while chunk := file.read(CHUNK):
                    out.write(chunk)
        except (OmniError, OSError) as error:
            return str(error) or type(error).__name__
        if (out.sha256, out.size) != (digest, size):
            return f"its {out.size} bytes are not those of its digest"
        self._held.add(digest)
        return None


def _open(digest: str) -> File[Any]:
    """From this host, or brought here from another one that has it. Raises NotFound."""
    if not store().exists(digest) and (others := copies.peers()) is not None:
        others.fetch(copies.HERE, digest)
    return store().open(digest)


def put_back(reader: Reader, found: Manifest, say: Callable[[str], None]) -> int:
    """Store every artifact of the archive that the store does not hold whole; how many."""
    stored = 0
    for part in found.artifacts:
        if not part.held:
            say(f"artifact {part.sha256} ({part.kind}) was not in the backup: what was made of it cannot be started")
            continue
        if store().verify(part.sha256):
            continue
        with reader.open(part.part) as file:
            store().put_file(part.sha256, File(file, name=part.sha256))
        if not store().verify(part.sha256):
            raise Refused(f"the artifact store does not give back what was put into it: {part.sha256}")
        stored += 1
    return stored

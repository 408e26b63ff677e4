"""Releases that are images: from the package that every node can fetch into this host's engine.

Owns the images of this platform on the engine, named by their package. An archive that names its image itself is
refused: it could put itself in the place of an image that others start.
"""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import Any

from agent.runtimes.base import Refused, Unavailable
from agent.runtimes.engine.client import LONG_CALL_S, Away, Declined, Engine

_LOADED = re.compile(r"^Loaded image(?: ID)?: (sha256:[0-9a-f]{64})\s*$", re.MULTILINE)  # without ID: Podman
_MANIFEST_BYTES = 1024 * 1024


class Images:
    def __init__(self, engine: Engine, platform: str) -> None:
        self._engine = engine
        self._repository = f"localhost/{platform}-image"

    def name(self, digest: str) -> str:
        return f"{self._repository}:{digest}"

    async def has(self, digest: str) -> bool:
        """Raises Unavailable while nobody knows."""
        try:
            await self._engine.call(lambda client: client.inspect_image(self.name(digest)))
        except Declined as error:
            if error.status == 404:
                return False
            raise Unavailable(str(error)) from error
        except Away as error:
            raise Unavailable(str(error)) from error
        return True

    async def load(self, digest: str, archive: Path) -> None:
        """Raises Refused for an archive that is none, Unavailable when the engine cannot take it now."""
        try:
            await self._engine.call(lambda client: self._load(client, digest, archive), LONG_CALL_S, lane="change")
        except Declined as error:
            raise Unavailable(f"the engine did not take image {digest[:12]}: {error}") from error
        except Away as error:
            raise Unavailable(str(error)) from error

    def _load(self, client: Any, digest: str, archive: Path) -> None:
        _check(archive)
        said: list[str] = []
        with archive.open("rb") as file:
            for event in client.load_image(file):
                if "error" in event:
                    raise Declined(500, str(event["error"])[:500])
                said.append(str(event.get("stream", "")))
        found = [image for text in said for image in _LOADED.findall(text)]
        if len(found) != 1:
            raise Refused(f"image {digest[:12]}: its archive holds {len(found)} images without a name, one is wanted")
        client.tag(found[0], self._repository, digest)

    async def discard(self, digest: str) -> None:
        """What is still used by a container stays until the next time."""
        try:
            await self._engine.call(lambda client: client.remove_image(self.name(digest)))
        except (Declined, Away):
            return

    async def discard_all(self) -> None:
        """Every image of this platform."""
        try:
            found = await self._engine.call(lambda client: client.images(name=self._repository))
        except (Declined, Away):
            return
        for tag in (tag for image in found for tag in image.get("RepoTags") or ()):
            await self.discard(tag.rpartition(":")[2])


def _check(archive: Path) -> None:
    try:
        with tarfile.open(archive, "r:") as tar:
            file = tar.extractfile("manifest.json")
            manifest = json.loads(file.read(_MANIFEST_BYTES)) if file is not None else None
        names = [name for image in manifest or () for name in image.get("RepoTags") or ()]
    except (tarfile.TarError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise Refused(f"it is no image archive: {type(error).__name__}") from error
    if names:
        raise Refused(f"the image archive names itself {names[0]}")

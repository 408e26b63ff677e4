"""Image archives as `docker save` makes them, and image references. Pure but for reading and writing files.

Owns telling an image archive from an app's folder, and taking out the names: an archive that is loaded with its names
would put itself in the place of the images that others know by them.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_MOST_MEMBERS = 20_000
_MANIFEST_BYTES = 1024 * 1024
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-f:]+\](?::[0-9]{1,5})?)/"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST})?{_PART}(?:/{_PART})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LONGEST = 500


def is_reference(text: str) -> bool:
    return len(text) <= _LONGEST and REFERENCE.fullmatch(text) is not None


def split(reference: str) -> tuple[str, str]:
    """Repository, and digest or tag (`latest` without one). Raises ValueError."""
    found = REFERENCE.fullmatch(reference)
    if found is None:
        raise ValueError(f"{reference!r} is no image reference")
    return found["name"], found["digest"] or found["tag"] or "latest"


def registry_of(reference: str) -> str:
    """The registry's host, `docker.io` when the reference names none."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def is_image_archive(path: Path) -> bool:
    """Whether the upload is what `docker save` makes; reads it up to its manifest."""
    try:
        with tarfile.open(path, "r:*") as tar:
            for number, member in enumerate(tar):
                if number > _MOST_MEMBERS:
                    return False
                if _name(member) == MANIFEST:
                    return _images(tar, member) is not None
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return False
    return False


def without_names(source: Path, target: Path, most_bytes: int) -> None:
    """Copy the archive of exactly one image, uncompressed, without its names. Raises ValueError, OSError, TarError."""
    written = 0
    with tarfile.open(source, "r:*") as tar, tarfile.open(target, "w") as out:
        for number, member in enumerate(tar):
            name = _name(member)
            written += member.size
            if number > _MOST_MEMBERS or written > most_bytes:
                raise ValueError(f"it unpacks to more than {most_bytes} bytes, or {_MOST_MEMBERS} members")
            if (
                name.startswith("/")
                or ".." in name.split("/")
                or not (member.isfile() or member.isdir() or member.issym())
            ):
                raise ValueError(f"{name[:100]!r} has no place in an image archive")
            if name == MANIFEST:
                _put(out, name, _nameless(tar, member))
            elif name == "index.json":
                _put(out, name, _without_annotations(tar, member))
            elif name != "repositories":
                member.name = name
                out.addfile(member, tar.extractfile(member) if member.isfile() else None)


def _nameless(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    images = _images(tar, member)
    if images is None or len(images) != 1:
        raise ValueError(f"{0 if images is None else len(images)} images in it, one is wanted")
    return json.dumps([{**images[0], "RepoTags": None}]).encode()


def _without_annotations(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    index = _read(tar, member)
    for manifest in index.get("manifests", ()):
        manifest.pop("annotations", None)
    return json.dumps(index).encode()


def _images(tar: tarfile.TarFile, member: tarfile.TarInfo) -> list[dict[str, Any]] | None:
    found = _read(tar, member)
    if not isinstance(found, list) or not found:
        return None
    return found if all(isinstance(one, dict) and "Config" in one and "Layers" in one for one in found) else None


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    file = tar.extractfile(member)
    return json.loads(file.read(_MANIFEST_BYTES)) if file is not None else None


def _put(out: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    out.addfile(info, io.BytesIO(data))


def _name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")

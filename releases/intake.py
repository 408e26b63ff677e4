"""What an upload must be before it is kept: a known kind of archive, with the digest that its sender announced.

Owns the reading of an upload's headers and first bytes. Unpacks nothing: that is the build worker's, in a sandbox.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from pathlib import Path

from omni.kernel.errors import FieldError, InvalidInput
from releases import image_archive
from releases.contract import IMAGE_REFERENCE, IMAGE_RUNTIMES

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_SHA256_DIGEST = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?(?=,|$)")
_TAR_MAGIC_AT = 257
_REFERENCE_BYTES = 4096


def check_version(version: str) -> str:
    """Raises InvalidInput."""
    if not VERSION.fullmatch(version):
        detail = "1 to 64 letters, digits and . _ + - are wanted, beginning with a letter or digit."
        raise InvalidInput("The version is not valid.", errors=[FieldError("/version", "invalid", detail)])
    return version


def announced_sha256(content_digest: str) -> str | None:
    """The sha-256 of a Content-Digest header, in hexadecimal; None without the header. Raises InvalidInput."""
    if not content_digest:
        return None
    found = _SHA256_DIGEST.search(content_digest)
    if found is None:
        raise InvalidInput("Content-Digest must hold sha-256=:<base64>:.", code="bad_digest")
    try:
        digest = base64.b64decode(found.group(1), validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise InvalidInput("The sha-256 of Content-Digest is not 32 bytes in base64.", code="bad_digest")
    return digest.hex()


def check_digest(announced: str | None, sha256: str) -> None:
    """Raises InvalidInput `digest_mismatch`."""
    if announced is not None and announced != sha256:
        raise InvalidInput(
            f"The body's sha256 is {sha256}, the announced one {announced}; nothing was kept.", code="digest_mismatch"
        )


def upload_type(path: Path, said: str, runtime: str) -> str:
    """What kind of upload it is: an archive, or the name of an image. Raises InvalidInput."""
    if said != "application/json":
        return archive_type(path, said)
    _image_reference(path)
    if runtime not in IMAGE_RUNTIMES:
        raise InvalidInput(
            "An image runs only where the app's runtime is docker or swarm.",
            code="image_needs_docker",
            next='PATCH /app/<app> {"runtime": "docker"}',
        )
    return IMAGE_REFERENCE


def _image_reference(path: Path) -> str:
    """The `image` of `{"image": "…"}`. Raises InvalidInput."""
    try:
        data = json.loads(path.read_bytes()) if path.stat().st_size <= _REFERENCE_BYTES else None
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or set(data) != {"image"} or not isinstance(data["image"], str):
        raise InvalidInput('{"image": "<reference>"} is wanted, and nothing else in it.', code="bad_image_reference")
    if not image_archive.is_reference(data["image"]):
        detail = "registry/name:tag or registry/name@sha256:… is wanted, the name in lower case."
        raise InvalidInput(
            "It is no image reference.", code="bad_image_reference", errors=[FieldError("/image", "invalid", detail)]
        )
    return data["image"]


def archive_type(path: Path, said: str) -> str:
    """What the first bytes say; only a tar of the oldest form has to be believed. Raises InvalidInput `bad_archive`."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x1f\x8b"):
        return "application/gzip"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "application/zip"
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar" or (said == "application/x-tar" and len(head) == 512):
        return "application/x-tar"
    raise InvalidInput(
        "The upload is no archive that we know: tar.gz, tar or zip.",
        code="bad_archive",
        next="tar -czf app.tar.gz -C <folder> .",
    )


def deploy_wanted(query: str | None, form: str | None) -> bool:
    """`deploy` of the query, else of the form, else true. Raises InvalidInput."""
    text = (query if query is not None else form if form is not None else "true").strip().lower()
    if text not in ("true", "false", "1", "0", ""):
        raise InvalidInput(
            "deploy is true or false.", errors=[FieldError("?deploy", "invalid", "true or false is wanted.")]
        )
    return text not in ("false", "0")

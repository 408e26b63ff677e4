"""Unpacking archives that may be hostile, and packing trees so that equal trees give equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class BadArchive(Exception):  # noqa: N818 (a name of the contract)
    """The archive is refused. `code` is stable, `member` the entry at fault (printable, shortened)."""

    def __init__(self, code: str, detail: str, member: str = "") -> None:
        super().__init__(f"{code}: {detail}" + (f" ({member})" if member else ""))
        self.code = code
        self.detail = detail
        self.member = member


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, checked while reading. `ratio`: unpacked bytes per packed byte."""

    files: int = 50_000
    bytes: int = 4 * 1024**3
    member_bytes: int = 2 * 1024**3
    depth: int = 64
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class Links:
    """Where symbolic links may point: inside the tree always; absolutely only below `prefixes` (e.g. this Python)."""

    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unpacked:
    files: int
    bytes: int


def unpack(
    path: Path,
    destination: Path,
    limits: Limits = Limits(),
    links: Links = Links(),
    owner: tuple[int, int] | None = None,
) -> Unpacked:
    """tar, tar.gz or zip by content; `destination` must not exist or be empty, and is left empty when refused."""
    raise NotImplementedError


def pack(
    tree: Path,
    out: Path,
    limits: Limits = Limits(),
    links: Links = Links(),
    alias: str = "/app",
) -> tuple[str, int]:
    """Write `tree` as an uncompressed tar, the same bytes for the same tree; answers its sha256 and size.

    Absolute links below `alias` (where the tree lay while it was built) become relative.
    """
    raise NotImplementedError

"""What an archive may hold: names, links, kinds and amounts, judged without touching the disk.

Owns the rules and their error codes; reads no format and writes no file. Every rule is a refusal with a code of
its own, because a user must be able to tell what to change in the archive.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "directory", "symlink", "hardlink"]

NAME_BYTES = 1024
PART_BYTES = 255
_DRIVE = re.compile(r"[A-Za-z]:")


class BadArchive(Exception):
    """The archive is refused. `code` is stable, `member` the entry at fault (printable, shortened)."""

    def __init__(self, code: str, detail: str, member: str = "") -> None:
        shown = printable(member)
        super().__init__(f"{code}: {detail}" + (f" ({shown})" if shown else ""))
        self.code = code
        self.detail = detail
        self.member = shown


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, checked while reading. `ratio`: unpacked bytes per packed byte, once there are enough to tell."""

    files: int = 50_000
    bytes: int = 4 * 1024**3
    member_bytes: int = 2 * 1024**3
    depth: int = 64
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class Links:
    """Where symbolic links may point: inside the tree always; absolutely only below `prefixes` (e.g. this Python).

    `anywhere`: they are a program's own data, which only that program follows, in its sandbox.
    """

    prefixes: tuple[str, ...] = ()
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One member whose name has passed the rules. `target`: raw for a symlink, a clean name for a hard link.

    `mode` and the owner are what the archive says; who unpacks decides whether that counts.
    """

    kind: Kind
    name: str
    size: int = 0
    executable: bool = False
    mtime: int = 0
    target: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0


class Budget:
    """Counts what has been read so far against the limits; calls `tick` meanwhile, which may raise to end it."""

    RATIO_FROM = 1024 * 1024  # below this much output a ratio says nothing
    META_BYTES = 64 * 1024 * 1024

    def __init__(self, limits: Limits, tick: Callable[[], None] = lambda: None) -> None:
        self.limits = limits
        self._tick = tick
        self.files = 0
        self.bytes = 0
        self._headers = 0
        self._meta_bytes = 0

    def add_file(self, name: str) -> None:
        self.files += 1
        if self.files > self.limits.files:
            raise BadArchive("too_many_files", f"more than {self.limits.files} files and directories", name)

    def add_header(self, meta_bytes: int = 0) -> None:
        """Count what makes no file too: extended headers and repeated directories cost time and memory as well."""
        self._tick()
        self._headers += 1
        self._meta_bytes += meta_bytes
        if self._headers > 4 * self.limits.files + 64 or self._meta_bytes > self.META_BYTES:
            raise BadArchive("too_many_headers", "far more headers than files")

    def add_bytes(self, count: int, name: str) -> None:
        self._tick()
        self.bytes += count
        if self.bytes > self.limits.bytes:
            raise BadArchive("too_many_bytes", f"more than {self.limits.bytes} bytes unpacked", name)

    def check_size(self, size: int, name: str) -> None:
        """Refuse a declared size before anything of it is read."""
        if size < 0:
            raise BadArchive("bad_size", "negative size", name)
        if size > self.limits.member_bytes:
            raise BadArchive("member_too_big", f"a file of more than {self.limits.member_bytes} bytes", name)
        if self.bytes + size > self.limits.bytes:
            raise BadArchive("too_many_bytes", f"more than {self.limits.bytes} bytes unpacked", name)

    def check_ratio(self, unpacked: int, packed: int, name: str = "") -> None:
        if unpacked > self.RATIO_FROM and unpacked > self.limits.ratio * max(packed, 1):
            raise BadArchive("bomb", f"unpacks to more than {self.limits.ratio} times its size", name)


class Names:
    """Every name of one archive and what it is: refuses duplicates, and paths that lead through something else."""

    def __init__(self, budget: Budget) -> None:
        self.kinds: dict[str, Kind] = {}
        self._budget = budget

    def add(self, entry: Entry) -> list[str]:
        """Register the entry; answers the directories above it that were not known yet, the highest first."""
        parents = self._new_parents(entry.name)
        known = self.kinds.get(entry.name)
        if known == "directory" and entry.kind == "directory":
            return parents
        if known is not None:
            raise BadArchive("duplicate_name", f"already in the archive as a {known}", entry.name)
        if entry.kind == "hardlink" and self.kinds.get(entry.target) not in ("file", "hardlink"):
            raise BadArchive("bad_hard_link", "a hard link must name an earlier file of the archive", entry.name)
        self._budget.add_file(entry.name)
        self.kinds[entry.name] = entry.kind
        return parents

    def _new_parents(self, name: str) -> list[str]:
        new = []
        parent = posixpath.dirname(name)
        while parent:
            kind = self.kinds.get(parent)
            if kind == "directory":
                break
            if kind == "symlink":
                raise BadArchive("path_through_link", f"lies below the symbolic link {printable(parent)}", name)
            if kind is not None:
                raise BadArchive("path_conflict", f"lies below {printable(parent)}, which is a file", name)
            new.append(parent)
            parent = posixpath.dirname(parent)
        for parent in new:
            self._budget.add_file(name)
            self.kinds[parent] = "directory"
        return new[::-1]


def decode(raw: bytes) -> str:
    """A name as text; anything but UTF-8 is refused, since two readers could understand two different names."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadArchive("bad_name", "the name is not UTF-8", raw.decode("latin-1")) from error


def clean_name(name: str, limits: Limits, *, windows: bool = False) -> str:
    """The name without "." and doubled slashes; "" is the root itself. `windows`: also refuse what is a path there."""
    _check_text(name, "name")
    if name.startswith("/"):
        raise BadArchive("absolute_path", "absolute names are refused", name)
    if windows and _DRIVE.match(name):
        raise BadArchive("absolute_path", "names with a drive letter are refused", name)
    if windows and "\\" in name:
        raise BadArchive("bad_name", "backslashes in names are refused; use /", name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadArchive("path_traversal", "'..' in names is refused", name)
    if len(parts) > limits.depth:
        raise BadArchive("too_deep", f"more than {limits.depth} directories deep", name)
    if any(len(part.encode()) > PART_BYTES for part in parts):
        raise BadArchive("name_too_long", f"a part of more than {PART_BYTES} bytes", name)
    cleaned = "/".join(parts)
    if len(cleaned.encode()) > NAME_BYTES:
        raise BadArchive("name_too_long", f"more than {NAME_BYTES} bytes", name)
    return cleaned


def check_symlink(name: str, target: str, links: Links) -> None:
    """Refuse a symbolic link that could lead out of the tree, whatever other links it passes.

    ".." may only lead, and no further up than the link's own directory is deep: every link then ends inside the
    tree, so a path of links does too. After a name, ".." would leave from wherever that name's link had led.
    """
    if not target:
        raise BadArchive("bad_link", "a link without a target", name)
    _check_text(target, "link target", name)
    if len(target.encode()) > NAME_BYTES:
        raise BadArchive("name_too_long", f"a link target of more than {NAME_BYTES} bytes", name)
    if links.anywhere:
        return
    if target.startswith("/"):
        if not _below(target, links.prefixes):
            raise BadArchive("link_escape", "the link points out of the tree", name)
        return
    parts = [part for part in target.split("/") if part not in ("", ".")]
    leading = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    if leading > name.count("/"):
        raise BadArchive("link_escape", "the link points out of the tree", name)
    if ".." in parts[leading:]:
        raise BadArchive("link_escape", "'..' after a name in a link could lead out of the tree", name)


def printable(text: str) -> str:
    """For messages: no control characters, no bidirectional tricks, not endless."""
    safe = "".join(
        char if char.isprintable() and unicodedata.category(char) not in ("Cf", "Cs", "Co") else "?"
        for char in text[:200]
    )
    return safe + ("…" if len(text) > 200 else "")


def _below(target: str, prefixes: tuple[str, ...]) -> bool:
    if posixpath.normpath(target) != target:
        return False
    return any(target == prefix or target.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)


def _check_text(text: str, what: str, member: str | None = None) -> None:
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise BadArchive("bad_name", f"control characters in a {what}", member or text)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadArchive("bad_name", f"the {what} is not UTF-8", member or text) from error

"""A folder as one archive for upload.

Owns which files go in (.gitignore in every directory, .omniignore at the top, and what never belongs in an upload) and
that equal folders give equal bytes. Must not talk to anybody.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli import ignoring
from cli.errors import USAGE, CommandError

if TYPE_CHECKING:
    import tarfile

ALWAYS_LEFT_OUT = (".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules", ".DS_Store", ".omni")


@dataclass(frozen=True, slots=True)
class Packed:
    path: Path
    files: int
    size: int
    sha256: str


def _read_rules(file: Path, directory: str) -> list[ignoring.Rules]:
    try:
        return [ignoring.parse(file.read_text(errors="replace").splitlines(), directory)]
    except FileNotFoundError:
        return []


def members(top: Path) -> Iterator[tuple[str, Path]]:
    """(name in the archive, file) of everything to pack, in a fixed order."""
    own = _read_rules(top / ".omniignore", "")
    yield from _walk(top, "", [], own)


def _walk(
    directory: Path, prefix: str, rules: list[ignoring.Rules], own: list[ignoring.Rules]
) -> Iterator[tuple[str, Path]]:
    rules = [*rules, *_read_rules(directory / ".gitignore", prefix)]
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.name in ALWAYS_LEFT_OUT:
            continue
        is_directory = entry.is_dir(follow_symlinks=False)
        name = f"{prefix}{entry.name}{'/' if is_directory else ''}"
        if _left_out(name, [*rules, *own]):
            continue
        if is_directory:
            yield from _walk(Path(entry.path), name, rules, own)
        elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
            yield name, Path(entry.path)


def _left_out(name: str, rules: list[ignoring.Rules]) -> bool:
    """The last file with something to say decides, as in git; .omniignore comes last."""
    verdicts = [verdict for rule in rules if (verdict := rule.says(name)) is not None]
    return bool(verdicts and verdicts[-1])


def pack(top: Path, out: Path) -> Packed:
    """Write `top` as a tar.gz to `out`; raises when there is nothing to pack."""
    import gzip
    import tarfile

    if not top.is_dir():
        raise CommandError(f"{top} is no folder", exit_code=USAGE)
    count = 0
    with (
        out.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, file in members(top):
            _add(archive, name, file)
            count += 1
    if count == 0:
        raise CommandError(f"nothing to upload in {top}: it is empty or everything is ignored", exit_code=USAGE)
    digest = hashlib.sha256()
    with out.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return Packed(out, count, out.stat().st_size, digest.hexdigest())


def _add(archive: tarfile.TarFile, name: str, file: Path) -> None:
    """One file, with nothing in it of this machine: the same folder packed again is the same artifact."""
    import tarfile

    info = tarfile.TarInfo(name)
    if file.is_symlink():
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, str(file.readlink()), 0o777
        archive.addfile(info)
        return
    with file.open("rb") as content:
        stat = os.fstat(content.fileno())
        info.size, info.mtime, info.mode = stat.st_size, int(stat.st_mtime), 0o755 if stat.st_mode & 0o100 else 0o644
        archive.addfile(info, content)

"""The trees of releases on this host: fetched by digest, unpacked once, shared, thrown away when nobody needs them.

Owns `trees/` below the directory of instances, together with the other agents of the host: one lock file per digest
says whose turn it is. A tree that stands under its own name is whole, because it gets that name last.

Throwing away is careful: a record that refers to a package is on disk before its tree is asked for, and a tree is
removed only under its lock after looking at every record of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from agent.control import ControlPlane, NoAnswer, Rejected
from agent.protocol import ReleaseRef
from agent.runtimes.base import Refused, Unavailable
from agent.store import TREES, Store
from sandbox.archive import BadArchive, Limits, Links, unpack
from sandbox.bubblewrap import runtime_binds

log = logging.getLogger(__name__)

IMAGE = ".omni-image"
FETCH_S = 600.0
LOCK_S = 900.0
# Our own build worker packed it under limits of its own; these only keep a host from being filled by mistake.
_LIMITS = Limits(files=500_000, bytes=16 * 1024**3, member_bytes=4 * 1024**3)
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class _Sink:
    """Writes and hashes what comes, block by block."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def __call__(self, block: bytes) -> None:
        self._file.write(block)
        self._hash.update(block)
        self.size += len(block)

    def close(self) -> str:
        self._file.close()
        return self._hash.hexdigest()


class Images(Protocol):
    """Where packages that are images go (`agent.runtimes.engine.images`)."""

    def name(self, digest: str) -> str: ...
    async def has(self, digest: str) -> bool: ...
    async def load(self, digest: str, archive: Path) -> None: ...
    async def discard(self, digest: str) -> None: ...


class Packages:
    """`images` is None on a node that has no engine to put them into."""

    def __init__(self, store: Store, control: ControlPlane, images: Images | None = None) -> None:
        self._store = store
        self._control = control
        self._images = images
        self._trees = store.instances_dir / TREES

    def path(self, digest: str) -> Path:
        return self._trees / digest

    async def ensure(self, release: ReleaseRef) -> Path:
        """The unpacked tree. Refused: it is no package at all; Unavailable: it cannot be had now."""
        digest = release.package
        if not _DIGEST.match(digest):
            raise Refused(f"{digest!r} is not a sha256")
        tree = self.path(digest)
        try:
            async with self._locked(digest, shared=True):  # many that start at once find it there at once
                if await self._is_here(release, tree):
                    return tree
            async with self._locked(digest):
                if release.kind == "image":
                    await self._make_image(release, tree)
                elif not tree.is_dir():
                    await self._make(release, tree)
        except OSError as error:
            raise Unavailable(f"cannot store package {digest[:12]}: {error}") from error
        return tree

    def image(self, release: ReleaseRef) -> str:
        """The engine's name of a release that is an image; "" for one that is a folder."""
        return self._images.name(release.package) if self._images and release.kind == "image" else ""

    async def _is_here(self, release: ReleaseRef, tree: Path) -> bool:
        if not tree.is_dir() or release.kind != "image":
            return tree.is_dir()
        return self._images is not None and await self._images.has(release.package)

    async def _make_image(self, release: ReleaseRef, tree: Path) -> None:
        """In its tree's place stands a folder with a mark: what is collected is known by it."""
        digest = release.package
        if self._images is None:
            raise Refused("the release is an image, and this node has no engine for it")
        if await self._is_here(release, tree):
            return
        archive = self._trees / f".{digest}.tar"
        try:
            if not await self._images.has(digest):
                await self._fetch(release, archive)
                await self._images.load(digest, archive)
            tree.mkdir(exist_ok=True)
            (tree / IMAGE).touch()
        finally:
            archive.unlink(missing_ok=True)

    async def _make(self, release: ReleaseRef, tree: Path) -> None:
        archive = self._trees / f".{release.package}.tar"
        unpacking = self._trees / f".{release.package}.unpacking"
        try:
            await self._fetch(release, archive)
            await asyncio.to_thread(_clear, unpacking)
            await asyncio.to_thread(_unpack, archive, unpacking)
            unpacking.rename(tree)
        except BadArchive as error:
            raise Refused(f"package {release.package[:12]}: {error}") from error
        finally:
            archive.unlink(missing_ok=True)
            await asyncio.to_thread(_clear, unpacking)

    async def _fetch(self, release: ReleaseRef, archive: Path) -> None:
        sinks: list[_Sink] = []

        def fresh() -> _Sink:
            sinks.append(_Sink(archive))
            return sinks[-1]

        try:
            limit = release.package_size or 8 * 1024**3
            await self._control.download(f"/agent/packages/{release.package}", FETCH_S, limit, fresh)
        except (NoAnswer, Rejected) as error:
            raise Unavailable(f"package {release.package[:12]} cannot be fetched: {error}") from error
        finally:
            digests = [sink.close() for sink in sinks]
        if digests[-1] != release.package:
            raise Unavailable(f"package {release.package[:12]} arrived damaged (digest {digests[-1][:12]})")

    async def collect(self) -> list[str]:
        """Remove trees that no record on this host refers to; answers their digests."""
        removed = []
        for entry in list(self._trees.iterdir()):
            if not _DIGEST.match(entry.name):
                continue
            used = self._store.packages_in_use()
            if used is None or entry.name in used:
                continue
            with contextlib.suppress(Unavailable):
                async with self._locked(entry.name, wait_s=0.0):
                    used = self._store.packages_in_use()
                    if used is not None and entry.name not in used:
                        if self._images is not None and (entry / IMAGE).exists():
                            await self._images.discard(entry.name)
                        await asyncio.to_thread(_discard, entry)
                        removed.append(entry.name)
        return removed

    @contextlib.asynccontextmanager
    async def _locked(self, digest: str, wait_s: float = LOCK_S, *, shared: bool = False) -> AsyncIterator[None]:
        """The host's lock for this digest; `shared` with others who change nothing. The file is never removed while
        anybody may wait for it."""
        path = self._trees / f".{digest[:2]}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = asyncio.get_running_loop().time() + wait_s
            while True:
                try:
                    fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if asyncio.get_running_loop().time() >= deadline:
                        raise Unavailable(f"package {digest[:12]} is being worked on by another agent") from None
                    await asyncio.sleep(0.1)
            yield
        finally:
            os.close(fd)


def _unpack(archive: Path, destination: Path) -> None:
    # A virtual environment's links lead to the Python it was made with, which every sandbox has at the same place.
    system = tuple(bind.target for bind in runtime_binds() if not bind.target.startswith("/etc/"))
    unpack(archive, destination, _LIMITS, Links(prefixes=system))


def _discard(tree: Path) -> None:
    doomed = tree.with_name(f".{tree.name}.unpacking")
    _clear(doomed)
    tree.rename(doomed)
    _clear(doomed)


def _clear(tree: Path) -> None:
    if tree.exists():
        shutil.rmtree(tree, ignore_errors=True)

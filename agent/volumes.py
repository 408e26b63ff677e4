"""The volumes of this node: how large they are, and their end.

Owns the directories under `volumes/` beside the instances', which runtimes bind into what they start. A directory is
made at the first start that needs it, and removed only on a list's explicit word: what no list names stays where it is.
Programs write into these directories as they please, so nothing here follows a link.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from agent.protocol import VolumeOrder, VolumeSeen
from agent.store import Store, beside

log = logging.getLogger(__name__)

# Beside a volume while it is restored: what it will be, the archive of that, and what it was.
NEW, ARCHIVE, OLD = "new", "archive", "old"
LOOK_S = 60.0
AGAIN_S = 2.0  # while something that is to be removed is still in use
MEASURE_S = 20.0  # a tree that takes longer has no size that anybody knows
_BLOCK = 512  # what st_blocks counts, whatever the file system


class Volumes:
    """`in_use`: the keys of what runs here; `jobs`: of those that are packed or restored. `report` is told of sizes
    that changed and of what is gone."""

    def __init__(
        self,
        store: Store,
        in_use: Callable[[], Collection[str]],
        report: Callable[[VolumeSeen], None],
        jobs: Callable[[], Collection[str]] = frozenset,
    ) -> None:
        self._store = store
        self._in_use = in_use
        self._jobs = jobs
        self._report = report
        self._orders: dict[str, VolumeOrder] = {}
        self._sizes: dict[str, int] = {}
        self._news = asyncio.Event()

    def apply(self, orders: Sequence[VolumeOrder]) -> None:
        wanted = {order.key: order for order in orders if self._store.is_volume(order.key)}
        for key in wanted:
            recover(self._store.volume(key))
        if wanted != self._orders:
            self._orders = wanted
            self._news.set()

    async def run(self) -> None:
        while True:
            pause = await self.look()
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause)

    async def look(self) -> float:
        """Every volume once; seconds until the next look."""
        pause = LOOK_S
        for order in list(self._orders.values()):
            try:
                if order.key in self._jobs():
                    pause = AGAIN_S if not order.keep else pause
                    continue
                await self._clear_left(order.key)
                if order.keep:
                    await self._measure(order.key)
                elif order.key in self._in_use() or not await self._remove(order.key):
                    pause = AGAIN_S
            except OSError as error:
                log.warning("volume %s: %s", order.key, error)
        return pause

    async def _measure(self, key: str) -> None:
        size = await asyncio.to_thread(size_of, self._store.volume(key), MEASURE_S)
        if size is not None and self._sizes.get(key) != size:
            self._sizes[key] = size
            self._report(VolumeSeen(key, size))

    async def _clear_left(self, key: str) -> None:
        """What a restore left beside the volume whose agent died in it, and which nobody wants any more."""
        if left := left_beside(self._store.volume(key)):
            log.info("volume %s: clearing %s, left by a restore", key, ", ".join(path.name for path in left))
            await asyncio.to_thread(clear, *left)

    async def _remove(self, key: str) -> bool:
        directory = self._store.volume(key)
        if directory.exists():
            log.info("volume %s is removed with all that is in it", key)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            if directory.exists():
                log.warning("volume %s cannot be removed whole; trying again", key)
                return False
        self._sizes.pop(key, None)
        self._report(VolumeSeen(key, removed=True))
        return True


def recover(volume: Path) -> None:
    """An agent that died between the two names of a restore left the volume without one: it gets its old one back."""
    old = beside(volume, OLD)
    if not volume.exists() and old.exists():
        log.warning("volume %s was left without a name in the middle of a restore: it is as before", volume.name)
        old.rename(volume)


def left_beside(volume: Path) -> list[Path]:
    """What of a restore nobody needs any more. Not what the volume was, while nothing stands in its place: it would be
    the only copy."""
    names = (NEW, ARCHIVE, OLD) if volume.exists() else (NEW, ARCHIVE)
    return [path for what in names if (path := beside(volume, what)).exists()]


def clear(*paths: Path) -> None:
    """Trees and files, as far as they can be removed."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def size_of(directory: Path, within_s: float) -> int | None:
    """The bytes that it takes on its disk. None: there is no such directory, or counting took longer than that."""
    if not directory.is_dir():
        return None
    until, found, seen = time.monotonic() + within_s, 0, set[tuple[int, int]]()
    for _, folders, files, at in os.fwalk(directory, follow_symlinks=False):
        if time.monotonic() > until:
            return None
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                status = os.stat(name, dir_fd=at, follow_symlinks=False)
                if status.st_nlink > 1 and (status.st_dev, status.st_ino) in seen:
                    continue  # another name of what was counted
                seen.add((status.st_dev, status.st_ino))
                found += status.st_blocks * _BLOCK
    return found

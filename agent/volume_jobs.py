"""Snapshots of this node's volumes, and their way back: made, sent, fetched and put in place as lists ask for it.

Owns each job from the list that names it to its end; one that no list names any more is given up. A snapshot is sent
while it is read and takes no room here. A restore is fetched, checked by its digest and unpacked beside the volume,
whose place it then takes in two renames: until that moment the volume is as it was, and after it all of it is the
snapshot's (`agent.volumes.recover` mends what an agent's death between the two leaves). A restore that an earlier agent
began is done again from the beginning, with the same outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.backoff import delay
from agent.control import ControlPlane, NoAnswer, Rejected
from agent.protocol import VolumeJob, VolumeJobSeen
from agent.store import Store
from agent.volume_archive import DEPTH, FILES, LINKS, Tally, pieces
from agent.volumes import ARCHIVE, NEW, OLD, clear, left_beside, recover
from sandbox.archive import BadArchive, Keep, Limits, unpack

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/gzip"
AT_ONCE = 2
PROGRESS_S = 10.0
TRIES = 6
_TRANSFER_S = 24 * 3600.0  # whoever ordered it gives it up earlier
_RATIO = 2_000  # gzip never packs better than about 1,000 : 1
_SPARE_BYTES = 64 << 20
Result = TypeVar("Result")


class JobFailed(Exception):
    """`reason` is a word for it, the text one sentence for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _GivenUp(Exception):
    """Nobody waits for it any more."""


@dataclass(slots=True, eq=False)
class _Running:
    job: VolumeJob
    gone: threading.Event = field(default_factory=threading.Event)  # for threads, which nobody can cancel
    done_bytes: int = 0
    task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Called by threads all the while. Raises _GivenUp."""
        if self.gone.is_set():
            raise _GivenUp

    def seen(self, **fields: Any) -> VolumeJobSeen:
        return VolumeJobSeen(self.job.kind, self.job.id, **{"done_bytes": self.done_bytes, **fields})


class VolumeJobs:
    """`in_use`: the keys of the volumes of what runs here. `report` is told of progress and of ends."""

    def __init__(
        self,
        store: Store,
        control: ControlPlane,
        in_use: Callable[[], Collection[str]],
        report: Callable[[VolumeJobSeen], None],
    ) -> None:
        self._store = store
        self._control = control
        self._in_use = in_use
        self._report = report
        self._listed: dict[tuple[str, int], _Running] = {}
        self._running: list[_Running] = []  # in the order of their lists
        self._turns = asyncio.Semaphore(AT_ONCE)

    def apply(self, jobs: Sequence[VolumeJob]) -> None:
        """The whole list: what it does not name any more is given up, what it names still is not done twice."""
        wanted = {(job.kind, job.id): job for job in jobs if self._store.is_volume(job.key)}
        for name in self._listed.keys() - wanted.keys():
            _give_up(self._listed.pop(name))
        for name, job in wanted.items():
            if name not in self._listed:
                running = self._listed[name] = _Running(job)
                self._running.append(running)
                running.task = asyncio.create_task(self._run(running), name=f"{job.kind} {job.id}")

    def busy(self) -> set[str]:
        """Keys of the volumes on which a job is at work or about to be."""
        return {running.job.key for running in self._running}

    async def close(self) -> None:
        tasks = [running.task for running in self._running if running.task is not None]
        for running in list(self._running):
            _give_up(running)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, running: _Running) -> None:
        job = running.job
        try:
            await self._earlier_end(running)
            async with self._turns:
                self._report(running.seen())
                telling = asyncio.create_task(self._tell(running))
                try:
                    seen = await self._outcome(running)
                finally:
                    telling.cancel()
            log.info("%s %s of volume %s: %s", job.kind, job.id, job.key, seen.reason or "succeeded")
            self._report(seen)
        finally:
            self._running.remove(running)

    async def _earlier_end(self, running: _Running) -> None:
        """One job at a time on a volume, also when the one before was given up and is still at its end."""
        for other in self._running[: self._running.index(running)]:
            if other.job.key == running.job.key and other.task is not None:
                await asyncio.wait({other.task})

    async def _tell(self, running: _Running) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            self._report(running.seen())

    async def _outcome(self, running: _Running) -> VolumeJobSeen:
        try:
            self._check_still(running.job)
            return await (self._snapshot(running) if running.job.kind == "snapshot" else self._restore(running))
        except JobFailed as failed:
            reason, detail = failed.reason, str(failed)
        except BadArchive as bad:
            reason, detail = bad.code, str(bad)
        except OSError as error:
            reason, detail = "disk_failed", f"the node's disk: {error}"
        except _GivenUp:
            reason, detail = "given_up", "nobody waits for it any more"
        except Exception:  # one job must not end the others
            log.exception("%s %s failed", running.job.kind, running.job.id)
            reason, detail = "failed", "something went wrong on the node"
        return running.seen(ended=True, reason=reason, detail=detail[:300])

    def _check_still(self, job: VolumeJob) -> None:
        if job.still and job.key in self._in_use():
            raise JobFailed("in_use", "something on the node uses the volume")

    # -- snapshots

    async def _snapshot(self, running: _Running) -> VolumeJobSeen:
        job = running.job
        sent: list[_Sending] = []

        def begin() -> AsyncIterator[bytes]:
            sent.append(_Sending(running, self._store.volume(job.key)))
            return sent[-1].chunks()

        path = f"/agent/snapshots/{job.id}"
        answer = await _persistently(lambda: self._control.upload(path, MEDIA_TYPE, _TRANSFER_S, begin))
        last = sent[-1]
        if not isinstance(answer, dict) or answer.get("sha256") != last.digest.hexdigest():
            raise JobFailed("damaged", "what arrived is not what was sent")
        self._check_still(job)
        tally = last.tally
        return running.seen(
            ended=True, done_bytes=tally.content_bytes, sha256=last.digest.hexdigest(), size=last.size,
            content_bytes=tally.content_bytes, files=tally.files, skipped=tally.skipped, root=tally.root,
        )  # fmt: skip

    # -- restores

    async def _restore(self, running: _Running) -> VolumeJobSeen:
        job, volume = running.job, self._store.volume(running.job.key)
        new, archive, old = (self._store.beside_volume(job.key, what) for what in (NEW, ARCHIVE, OLD))
        try:
            archive.parent.mkdir(mode=0o711, exist_ok=True)
            recover(volume)
            await _aside(running, lambda: clear(*left_beside(volume)))
            _check_room(job, archive.parent)
            await _persistently(lambda: self._fetch(running, archive))
            await _aside(running, lambda: _unpack(running, archive, new, volume))
            self._check_still(job)
            _swap(volume, new, old)
        finally:
            await _aside(running, lambda: clear(*left_beside(volume)))
        return running.seen(ended=True, done_bytes=job.content_bytes, sha256=job.sha256)

    async def _fetch(self, running: _Running, archive: Path) -> None:
        job, sinks = running.job, list[_Sink]()

        def fresh() -> _Sink:
            sinks.append(_Sink(running, archive))
            return sinks[-1]

        try:
            await self._control.download(f"/agent/packages/{job.sha256}", _TRANSFER_S, job.size, fresh)
        finally:
            digests = [sink.close() for sink in sinks]
        if digests[-1] != job.sha256:
            raise JobFailed("damaged", f"the archive arrived damaged (digest {digests[-1][:12]})")


class _Sending:
    """One try at sending a volume: what went out so far, and its digest."""

    def __init__(self, running: _Running, volume: Path) -> None:
        self._running = running
        self.tally = Tally()
        self.digest = hashlib.sha256()
        self.size = 0
        self._pieces: Iterator[bytes] = pieces(volume, running.job.max_bytes, self.tally, running.check)

    async def chunks(self) -> AsyncIterator[bytes]:
        while piece := await _aside(self._running, self._next):
            yield piece

    def _next(self) -> bytes:
        try:
            piece = next(self._pieces, b"")
        except OSError as error:
            raise JobFailed("disk_failed", f"the volume cannot be read: {error}") from error
        self.digest.update(piece)
        self.size += len(piece)
        self._running.done_bytes = self.tally.content_bytes
        return piece


class _Sink:
    def __init__(self, running: _Running, path: Path) -> None:
        self._running = running
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        running.done_bytes = 0

    def __call__(self, block: bytes) -> None:
        self._running.check()
        try:
            self._file.write(block)
        except OSError as error:
            raise JobFailed("disk_failed", f"the archive cannot be kept: {error}") from error
        self._hash.update(block)
        self._running.done_bytes += len(block)

    def close(self) -> str:
        self._file.close()
        return self._hash.hexdigest()


async def _persistently(call: Callable[[], Awaitable[Result]]) -> Result:
    """Again while no member answers, a few times. Raises JobFailed."""
    for failures in range(1, TRIES + 1):
        try:
            return await call()
        except NoAnswer as error:
            if failures == TRIES:
                raise JobFailed("no_answer", f"no member took or gave it: {error}") from error
            log.warning("try %d: %s", failures, error)
            await asyncio.sleep(delay(failures, 0.5, first=0.5, longest=15.0))
        except Rejected as error:
            raise JobFailed("refused", str(error)) from error
    raise AssertionError("unreachable")


async def _aside(running: _Running, work: Callable[[], Result]) -> Result:
    """On a thread, whose end is waited for whatever happens: nothing goes on behind our back."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        running.gone.set()
        await asyncio.wait({task})
        with contextlib.suppress(Exception):
            task.result()
        raise


def _give_up(running: _Running) -> None:
    running.gone.set()
    if running.task is not None:
        running.task.cancel()


def _check_room(job: VolumeJob, place: Path) -> None:
    free, wanted = shutil.disk_usage(place).free, job.size + job.content_bytes + _SPARE_BYTES
    if free < wanted:
        raise JobFailed("no_room", f"{wanted} bytes are needed beside the volume, {free} are free on the node")


def _unpack(running: _Running, archive: Path, new: Path, volume: Path) -> None:
    """What was the old volume's owner's becomes the present one's; everything ours where owners cannot be given."""
    job = running.job
    before = job.root.get("uid", 0), job.root.get("gid", 0)
    now = before
    with contextlib.suppress(FileNotFoundError):
        status = volume.stat()
        now = status.st_uid, status.st_gid

    def owner_of(uid: int, gid: int) -> tuple[int, int]:
        return now[0] if uid == before[0] else uid, now[1] if gid == before[1] else gid

    keep = Keep(owner_of if os.geteuid() == 0 else None)
    limits = Limits(files=FILES, bytes=job.content_bytes, member_bytes=1 << 62, depth=DEPTH, ratio=_RATIO)
    unpack(archive, new, limits, LINKS, tick=running.check, keep=keep)
    if keep.owner_of is not None:
        os.chown(new, *now)
    new.chmod(job.root.get("mode", 0o700) & 0o777)
    os.sync()  # what is said to be restored survives a power cut


def _swap(volume: Path, new: Path, old: Path) -> None:
    if volume.exists():
        volume.rename(old)
    try:
        new.rename(volume)
    except OSError:
        if old.exists():
            old.rename(volume)
        raise
    folder = os.open(volume.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # before what the volume was is removed
    finally:
        os.close(folder)

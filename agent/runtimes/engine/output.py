"""A container's output, from the engine's log into the instance's two files, without gap or repetition.

Owns `container-log.json` beside them. The engine keeps each line with its time; what has been written is known by the
last time of each stream and by how long the files were then. After a death in the middle the lines after that time are
fetched again, and as many bytes of them are left out as the files are longer. Nothing is lost while the agent, or the
engine, is away, up to what the engine keeps (`max-size`). The one assumption: the wall clock is not set back meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from agent.runtimes.engine import stream
from agent.runtimes.engine.client import Declined, Engine, EngineError
from agent.store import write_atomically

log = logging.getLogger(__name__)

POSITION = "container-log.json"
NAMES = ("stdout.log", "stderr.log")
_HEADER = struct.Struct(">BxxxL")
_SAVE_S = 0.5
_AGAIN_S = 0.5
_START = (0, 0)
Moment = tuple[int, int]  # seconds, nanoseconds


@dataclass(slots=True)
class Position:
    """`last` is the time of each stream's last line that was written, `same` how many had that time, `sizes` how long
    the files were after it."""

    container: str
    last: list[Moment] = field(default_factory=lambda: [_START, _START])
    same: list[int] = field(default_factory=lambda: [0, 0])
    sizes: list[int] = field(default_factory=lambda: [0, 0])
    complete: bool = False


class Output:
    """One container's, or one Swarm service's. `running` says whether it still runs. `endless`: the engine does not end
    its answer when the output has ended, so that it is followed until `finish`."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        directory: Path,
        running: Callable[[], Awaitable[bool]],
        *,
        endless: bool = False,
    ) -> None:
        self._engine = engine
        self._container = container
        self._endless = endless
        self._over = asyncio.Event()
        self._directory = directory
        self._running = running
        self._files: list[int] = []
        self._task: asyncio.Task[None] | None = None

    def follow(self) -> asyncio.Task[None]:
        """Go on in the background, if nobody does; harmless to repeat."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"output of {self._container[:12]}")
        return self._task

    async def finish(self, patience_s: float) -> bool:
        """The container has ended: wait until all of its output is here. False: it took too long."""
        self._over.set()
        done, _ = await asyncio.wait([self.follow()], timeout=patience_s)
        return bool(done)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                with _alone(self._directory) as only:
                    if only:
                        await self._to_the_end()
                        return
                    if _is_complete(self._directory, self._container):
                        return
            except (EngineError, OSError, ValueError) as error:
                log.debug("output of %s: %s", self._container[:12], error)
                if isinstance(error, (Declined, FileNotFoundError)):
                    return  # no such container, or its instance's directory is gone
            await asyncio.sleep(_AGAIN_S)

    async def _to_the_end(self) -> None:
        while not await self._pass():
            if await self._running():
                await asyncio.sleep(_AGAIN_S)

    async def _pass(self) -> bool:
        """Follow until the stream ends; True when that was the end of everything."""
        position = load(self._directory, self._container)
        if position.complete:
            return True
        ended = not await self._running()
        with self._open_files():
            try:
                if ended or not self._endless:
                    await self._copy(position, follow=not ended)
                else:
                    await self._copy_until_over(position)
            finally:
                _save(self._directory, position)
        if ended:
            position.complete = True
            _save(self._directory, position)
        return ended

    async def _copy_until_over(self, position: Position) -> None:
        copying = asyncio.ensure_future(self._copy(position, follow=True))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([copying, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            if not copying.done():
                copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
        if not copying.cancelled():
            copying.result()

    async def _copy(self, position: Position, follow: bool) -> None:
        skip = [max(0, os.fstat(fd).st_size - size) for fd, size in zip(self._files, position.sizes, strict=True)]
        resumed_at, written = list(position.last), list(position.same)
        passed = [0, 0]
        since = max(_START, (min(resumed_at)[0] - 1, 0))
        path = f"/{'services' if self._endless else 'containers'}/{self._container}/logs"
        query = {"stdout": "1", "stderr": "1", "timestamps": "1", "since": f"{since[0]}.{since[1]:09d}"}
        query["follow"] = "1" if follow else "0"
        saved_at = asyncio.get_running_loop().time()
        async for which, at, line in frames(stream.get(self._engine.url, path, query)):
            if at < resumed_at[which]:
                continue
            if at == resumed_at[which] and passed[which] < written[which] and resumed_at[which] != _START:
                passed[which] += 1
                continue
            there = min(skip[which], len(line))
            skip[which] -= there
            self._write(which, line[there:])
            position.sizes[which] += len(line)
            if at != position.last[which]:
                position.last[which], position.same[which] = at, 0
            position.same[which] += 1
            now = asyncio.get_running_loop().time()
            if now - saved_at > _SAVE_S:
                _save(self._directory, position)
                saved_at = now

    def _write(self, which: int, text: bytes) -> None:
        while text:
            text = text[os.write(self._files[which], text) :]

    @contextlib.contextmanager
    def _open_files(self) -> Iterator[None]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._files = [os.open(self._directory / name, flags, 0o600) for name in NAMES]
        try:
            yield
        finally:
            while self._files:
                os.close(self._files.pop())


async def frames(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[tuple[int, Moment, bytes], None]:
    """The engine's frames as (0 stdout or 1 stderr, time, text without its time)."""
    rest = b""
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            rest = rest + piece if rest else piece
            at = 0
            while len(rest) - at >= _HEADER.size:
                which, length = _HEADER.unpack_from(rest, at)
                if len(rest) - at - _HEADER.size < length:
                    break
                at += _HEADER.size
                when, _, text = rest[at : at + length].partition(b" ")
                at += length
                yield (1 if which == 2 else 0), moment(when.decode("ascii", "replace")), text
            rest = rest[at:]


def moment(text: str) -> Moment:
    """An RFC 3339 time with up to nine digits of a second, in UTC or with its offset. Raises ValueError."""
    head, _, tail = text.partition(".")
    if not tail:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()), 0
    digits = tail.rstrip("Z") if tail.endswith("Z") else tail.split("+")[0].split("-")[0]
    zone = tail[len(digits) :].replace("Z", "+00:00")
    return _seconds(head, zone), int(digits[:9].ljust(9, "0"))


_LAST: list[tuple[tuple[str, str], int]] = [(("", ""), 0)]


def _seconds(head: str, zone: str) -> int:
    # Lines come many in a second: the last answer is nearly always the next.
    if _LAST[0][0] != (head, zone):
        found = int(datetime.fromisoformat(head + (zone or "+00:00")).astimezone(UTC).timestamp())
        _LAST[0] = ((head, zone), found)
    return _LAST[0][1]


def begin(directory: Path, container: str) -> None:
    """A new container is about to run: its output goes behind what the files hold already."""
    sizes = []
    for name in NAMES:
        try:
            sizes.append((directory / name).stat().st_size)
        except FileNotFoundError:
            sizes.append(0)
    _save(directory, Position(container, sizes=sizes))


def load(directory: Path, container: str) -> Position:
    """Where we are with this container; at its beginning when nothing is known of it."""
    try:
        data = json.loads((directory / POSITION).read_bytes())
        if data["container"] == container:
            last = [(int(second), int(nano)) for second, nano in data["last"]]
            return Position(container, last, list(data["same"]), list(data["sizes"]), bool(data["complete"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    begin(directory, container)
    return load(directory, container)


def _is_complete(directory: Path, container: str) -> bool:
    """Whether somebody else has written everything."""
    try:
        data = json.loads((directory / POSITION).read_bytes())
        return data["container"] != container or bool(data["complete"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _save(directory: Path, position: Position) -> None:
    write_atomically(directory / POSITION, position)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """One writer of the two files at a time, whatever process it lives in."""
    fd = os.open(directory / f".{POSITION}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)

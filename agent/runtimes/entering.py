"""A command that somebody runs in an instance and talks to: what is wished for, and the talk with it.

Owns the words of that part of the runtimes' contract, and the talk with a child of this process by pipes or by a
terminal. Knows neither the control plane nor a sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from agent import procfs

STDOUT, STDERR = 1, 2
_BLOCK = 32 * 1024
_PIECES = 16
Piece = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """`argv` is run as it stands, by no shell. With `tty` it has a terminal, and stdout and stderr are one."""

    argv: tuple[str, ...]
    tty: bool = False
    columns: int = 80
    rows: int = 24


class Entered(ABC):
    """A command that runs. Its output is read by one reader; nothing here waits for longer than the command does."""

    @abstractmethod
    async def read(self) -> Piece | None:
        """What it wrote, with the stream; None when nobody can write any more."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """To its standard input; lost when it reads no more."""

    @abstractmethod
    async def end_input(self) -> None: ...

    @abstractmethod
    async def resize(self, columns: int, rows: int) -> None: ...

    @abstractmethod
    async def wait(self) -> int | None:
        """How it ended, as a shell says it: 128 + n for signal n. None: nobody knows."""

    @abstractmethod
    async def end(self) -> None:
        """When it returns, nothing of it is left but what left its tree of processes."""


class Child(Entered):
    """A child of this process."""

    def __init__(self, process: asyncio.subprocess.Process, terminal: int | None) -> None:
        self._process = process
        self._terminal = terminal
        self._pieces: asyncio.Queue[Piece | None] = asyncio.Queue(_PIECES)
        self._readers: list[asyncio.Task[None]] = []
        self._left = 0

    @classmethod
    async def start(cls, argv: Sequence[str], entry: Entry, told: bytes) -> Child:
        """`told` waits for it on a descriptor whose number is put behind `argv`. Raises OSError."""
        reading, writing = os.pipe()
        master = slave = None
        try:
            if entry.tty:
                master, slave = os.openpty()
                os.fchmod(slave, 0o666)  # the command is another user, and may open it again by its name
                _resize(master, entry.columns, entry.rows)
            ends = (slave, slave, slave) if entry.tty else (asyncio.subprocess.PIPE,) * 3
            process = await asyncio.create_subprocess_exec(
                *argv, str(reading), stdin=ends[0], stdout=ends[1], stderr=ends[2],
                env={"PATH": os.defpath}, cwd="/", start_new_session=True, pass_fds=(reading,),
            )  # fmt: skip
        except BaseException:
            os.close(writing)
            if master is not None:
                os.close(master)
            raise
        finally:
            os.close(reading)
            if slave is not None:
                os.close(slave)
        await asyncio.to_thread(_hand_over, writing, told)
        made = cls(process, master)
        await made._listen()
        return made

    async def _listen(self) -> None:
        if self._terminal is not None:
            reader = asyncio.StreamReader(_BLOCK)
            loop = asyncio.get_running_loop()
            file = os.fdopen(os.dup(self._terminal), "rb", 0)
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
            streams = [(STDOUT, reader)]
        else:
            found = ((STDOUT, self._process.stdout), (STDERR, self._process.stderr))
            streams = [(number, stream) for number, stream in found if stream is not None]
        self._left = len(streams)
        self._readers = [asyncio.create_task(self._pump(number, stream)) for number, stream in streams]

    async def _pump(self, number: int, stream: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):  # a terminal that nobody has open any more says so
            while data := await stream.read(_BLOCK):
                await self._pieces.put((number, data))
        self._left -= 1
        if self._left == 0:
            await self._pieces.put(None)

    async def read(self) -> Piece | None:
        return await self._pieces.get()

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._terminal is not None:
                await _write_all(self._terminal, data)
            elif self._process.stdin is not None:
                self._process.stdin.write(data)
                await self._process.stdin.drain()

    async def end_input(self) -> None:
        if self._terminal is not None:
            await self.write(b"\x04")  # what a terminal says at the beginning of a line
        elif self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        if self._terminal is not None:
            with contextlib.suppress(OSError):
                _resize(self._terminal, columns, rows)

    async def wait(self) -> int | None:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def end(self) -> None:
        if self._process.returncode is None:
            for pid in procfs.descendants(procfs.scan(), {self._process.pid}):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            await self._process.wait()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None


def _hand_over(descriptor: int, told: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
        file.write(told)


async def _write_all(descriptor: int, data: bytes) -> None:
    """A terminal takes a few KiB at a time; who does not read holds up only who writes to him."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            room = asyncio.Event()
            loop.add_writer(descriptor, room.set)
            try:
                await room.wait()
            finally:
                loop.remove_writer(descriptor)


def _resize(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

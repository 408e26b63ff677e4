"""A command that the engine runs in a container for somebody to talk to.

Owns the raw connection by which the engine hands over its input and output, and the engine's way of telling two
streams apart. Where the command is to end, its processes are ended here: the engine has no call for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from agent.runtimes.engine import executing
from agent.runtimes.engine.client import Away, Declined, Engine, EngineError
from agent.runtimes.engine.stream import CONNECT_S, answered, opened
from agent.runtimes.entering import STDOUT, Entered, Entry, Piece

_BLOCK = 32 * 1024
_HEADER = 8
_END_S = 10.0
_ENDS_S = 10.0  # between the end of its output and the engine's word on it
_ENVIRONMENT = {"TERM": "xterm"}


class EngineEntry(Entered):
    def __init__(
        self, engine: Engine, container: str, execution: str, tty: bool,
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self._engine, self._container, self._execution, self._tty = engine, container, execution, tty
        self._reader, self._writer = reader, writer
        self._over = asyncio.Event()
        self._stream, self._left = STDOUT, 0

    @classmethod
    async def start(cls, engine: Engine, container: str, entry: Entry) -> EngineEntry:
        """Raises Away and Declined."""

        def create(client: Any) -> str:
            return str(
                client.exec_create(container, list(entry.argv), stdin=True, tty=entry.tty, environment=_ENVIRONMENT)[
                    "Id"
                ]
            )

        execution = await engine.call(create)
        start: dict[str, Any] = {"Detach": False, "Tty": entry.tty}
        if entry.tty:
            start["ConsoleSize"] = [entry.rows, entry.columns]  # an engine before API 1.42 hears of it a moment later
        body = json.dumps(start).encode()
        reader, writer = await opened(engine.url)
        try:
            head = (
                f"POST /exec/{execution}/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
                f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode("ascii") + body)
            async with asyncio.timeout(CONNECT_S * 2):
                status, _ = await answered(reader)
            if status not in (101, 200):
                raise Declined(
                    status, f"the engine answered {status}: {(await reader.read(300)).decode('utf-8', 'replace')}"
                )
        except (OSError, TimeoutError, ValueError, EOFError) as error:
            writer.transport.abort()
            raise Away(f"no answer from the engine at {engine.url}: {type(error).__name__}") from error
        except BaseException:
            writer.transport.abort()
            raise
        made = cls(engine, container, execution, entry.tty, reader, writer)
        await made.resize(entry.columns, entry.rows)
        return made

    async def read(self) -> Piece | None:
        try:
            piece = await (self._raw() if self._tty else self._framed())
        except (OSError, EOFError):
            piece = None
        if piece is None:
            self._over.set()
        return piece

    async def _raw(self) -> Piece | None:
        data = await self._reader.read(_BLOCK)
        return (STDOUT, data) if data else None

    async def _framed(self) -> Piece | None:
        while self._left == 0:
            header = await self._reader.readexactly(_HEADER)
            self._stream, self._left = header[0], int.from_bytes(header[4:], "big")
        data = await self._reader.read(min(self._left, _BLOCK))
        self._left -= len(data)
        return (self._stream, data) if data else None

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(data)
            await self._writer.drain()

    async def end_input(self) -> None:
        if self._tty:
            await self.write(b"\x04")
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        if self._tty:
            with contextlib.suppress(EngineError):
                await self._engine.call(lambda client: client.exec_resize(self._execution, height=rows, width=columns))

    async def wait(self) -> int | None:
        """The engine says that a command has ended by closing its output."""
        await self._over.wait()
        clock = asyncio.get_running_loop().time
        until = clock() + _ENDS_S
        while clock() < until:
            try:
                about = await self._engine.call(lambda client: client.exec_inspect(self._execution))
            except EngineError:
                return None
            if not about.get("Running"):
                code = about.get("ExitCode")
                return None if code is None else int(code)
            await asyncio.sleep(0.02)
        return None

    async def end(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await executing.end(self._engine, self._execution, self._container)
        self._writer.transport.abort()

"""Callers of one app through the ingress, at a given rate, who count whatever goes wrong.

Owns the counting: keep-alive connections that ask as often as they were told to, and others that ask for something
slow. A refused or broken connection is a failure like a 502. Runs on a thread of its own, beside what is measured; or
where only its folder is at hand: `python -m bench.callers ADDRESS PORT RATE FILE`, which writes what it counted by now.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

TIMEOUT_S = 15.0


@dataclass(slots=True)
class Answered:
    """Of the requests that were sent between two looks."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return self.statuses.total()

    @property
    def failed(self) -> int:
        return self.requests - self.statuses["200"]

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def p99_ms(self) -> float:
        found = sorted(self.latencies)
        return found[int(len(found) * 0.99)] * 1000 if found else 0.0


class Callers:
    """`with Callers(port, host) as callers: callers.take()` … `callers.take()`."""

    def __init__(
        self,
        port: int,
        host: str,
        *,
        rate: float = 250.0,
        connections: int = 16,
        slow: int = 4,
        address: str = "127.0.0.1",
    ) -> None:
        self._port, self._host, self._address = port, host, address
        self._pause_s = connections / rate
        self._connections, self._slow = connections, slow
        self._found = Answered()
        self._since = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def take(self) -> Answered:
        """What has been answered since the last time."""
        with self._lock:
            found, self._found = self._found, Answered()
        now = time.monotonic()
        found.seconds, self._since = now - self._since, now
        return found

    async def _run(self) -> None:
        quick = [self._ask("/", self._pause_s, index) for index in range(self._connections)]
        slow = [self._ask("/slow", 0.0, index) for index in range(self._slow)]
        await asyncio.gather(*quick, *slow)

    async def _ask(self, path: str, pause_s: float, index: int) -> None:
        """One connection after the other: the next as soon as the last is of no use any more."""
        await asyncio.sleep(pause_s * index / self._connections)
        request = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode()
        wires: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    wires = wires or await asyncio.open_connection(self._address, self._port)
                    status, stays = await _once(*wires, request)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                status, stays = type(error).__name__, False
            self._count(status, None if path == "/slow" else time.monotonic() - begun)
            if not stays and wires is not None:
                wires[1].close()
                wires = None
            await asyncio.sleep(max(0.0, pause_s - (time.monotonic() - begun)))
        if wires is not None:
            wires[1].close()

    def _count(self, status: str, latency: float | None) -> None:
        with self._lock:
            self._found.statuses[status] += 1
            if latency is not None:
                self._found.latencies.append(latency)


async def _once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[str, bool]:
    """The status, and whether the connection may be used again."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = int(value)
    await reader.readexactly(length)
    return head[9:12].decode(), b"connection: close" not in head and b"transfer-encoding" not in head


def main(address: str, port: str, rate: str, file: str) -> None:
    """Until it is killed. Every 0.5 s the whole count so far: statuses, and latencies of quick requests in ms."""
    counted: Counter[str] = Counter()
    with Callers(int(port), address, rate=float(rate), address=address) as callers:
        while True:
            time.sleep(0.5)
            found = callers.take()
            counted += found.statuses
            told = Path(f"{file}.new")
            told.write_text(json.dumps({"statuses": counted, "p99_ms": found.p99_ms}), encoding="ascii")
            told.replace(file)


if __name__ == "__main__":
    main(*sys.argv[1:])

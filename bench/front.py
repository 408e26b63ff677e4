"""Slow things never starve fast ones (DECISIONS 11): p99 of a plain read, alone and beside 420 slow connections.

    .venv/bin/python -m bench.front

Opens 200 event streams, 200 waiting reads and 20 slow uploads on one member, and measures GET /orgs/default with four
keep-alive clients before and during. The ratio of the two p99 in one run is the figure (aim: below 2).
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time

import httpx
import psutil

from bench.harness import Platform, report, table

STREAMS, WAITERS, UPLOADS = 200, 200, 20
SECONDS = 6.0


async def fast_reads(base: str, token: str, seconds: float, clients: int = 4) -> list[float]:
    """Latencies in milliseconds, first half second left out."""
    took: list[float] = []
    began = time.monotonic()

    async def one() -> None:
        async with httpx.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {token}"}) as client:
            while time.monotonic() - began < seconds:
                started = time.perf_counter()
                (await client.get("/orgs/default")).raise_for_status()
                if time.monotonic() - began > 0.5:
                    took.append((time.perf_counter() - started) * 1000)
                await asyncio.sleep(0.005)

    await asyncio.gather(*(one() for _ in range(clients)))
    return took


async def slow_connection(host: str, port: int, head: str, trickle: bytes = b"") -> None:
    """Send a request head, then either read what comes for ever, or send one byte a while."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(head.encode())
    try:
        while True:
            if trickle:
                writer.write(trickle)
                await writer.drain()
                await asyncio.sleep(0.5)
            elif not await reader.read(65536):
                return
    finally:
        writer.close()


def heads(token: str, app: str) -> list[tuple[str, bytes]]:
    common = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
    streams = [(f"GET /events HTTP/1.1\r\n{common}Accept: text/event-stream\r\n\r\n", b"")] * STREAMS
    waiters = [
        (f"GET /app/{app}/info?index=999999&wait=60&n={n} HTTP/1.1\r\n{common}\r\n", b"") for n in range(WAITERS)
    ]
    uploads = [
        (
            f"POST /app/{app}/release/slow{n}/upload HTTP/1.1\r\n{common}Content-Type: application/gzip\r\n"
            "Content-Length: 1000000\r\n\r\n\x1f",
            b"x" * 10,
        )
        for n in range(UPLOADS)
    ]
    return streams + waiters + uploads


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def web_memory(platform: Platform) -> int:
    root = psutil.Process(platform.processes["web"].pid)
    return sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])


async def measure(platform: Platform) -> dict[str, float]:
    base, token = platform.url, platform.token
    with platform.client() as client:
        client.post("/app/create", json={"name": "front-bench"}).raise_for_status()
    await fast_reads(base, token, 2.0)
    before, memory = await fast_reads(base, token, SECONDS), web_memory(platform)
    slow = [
        asyncio.create_task(slow_connection("127.0.0.1", platform.port, *head)) for head in heads(token, "front-bench")
    ]
    await asyncio.sleep(2.0)
    during, memory_during = await fast_reads(base, token, SECONDS), web_memory(platform)
    alive = sum(not task.done() for task in slow)
    for task in slow:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*slow, return_exceptions=True)
    return {
        "p50 alone, ms": statistics.median(before),
        "p50 beside them, ms": statistics.median(during),
        "p99 alone, ms": percentile(before, 0.99),
        "p99 beside them, ms": percentile(during, 0.99),
        "p99 ratio (aim below 2)": percentile(during, 0.99) / percentile(before, 0.99),
        "slow connections still open": alive,
        "memory growth, MiB": (memory_during - memory) / (1 << 20),
    }


def main() -> None:
    with Platform(database="sqlite") as platform:
        figures = asyncio.run(measure(platform))
    rows = [[name, f"{value:.2f}"] for name, value in figures.items()]
    report("front: a plain read beside 200 event streams, 200 waiting reads, 20 slow uploads", table(["", ""], rows))


if __name__ == "__main__":
    main()

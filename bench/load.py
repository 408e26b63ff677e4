"""A load generator: N connections, each one request after another, in a process of its own.

    python -m bench.load '{"port": 8000, "connections": 8, "seconds": 5, "requests": ["GET /x HTTP/1.1\\r\\n…"]}'

Owns the counting: requests/s, latency, answers by status, and what the servers' processes computed meanwhile (a rate
on a shared machine says who else was there; CPU time per request says what the work costs). Keeps to what a benchmark
needs: keep-alive, bodies by Content-Length or chunked. `{n}` in a request is replaced by a number that grows.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BODY_LENGTH = re.compile(r"Content-Length: @\r\n")


@dataclass(frozen=True, slots=True)
class Measured:
    """`statuses` of all answers; latencies in milliseconds; `cpu_ms` a request, by the name of what was watched."""

    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[str, int] = field(default_factory=dict)
    cpu_ms: dict[str, float] = field(default_factory=dict)

    def check(self, *wanted: int) -> Measured:
        """Raises when anything but the wanted status was answered: a fast error is no result."""
        odd = {status: n for status, n in self.statuses.items() if int(status) not in wanted}
        if odd or not self.statuses:
            raise RuntimeError(f"answers other than {wanted}: {odd or 'none at all'}")
        return self


def request_of(method: str, path: str, headers: dict[str, str], body: str = "") -> str:
    """A request as text; the length of a body with `{n}` is found out when it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines += ["Content-Type: application/json", "Content-Length: @"]
    return "\r\n".join(lines) + "\r\n\r\n" + body


def run(
    port: int,
    requests: list[str],
    *,
    connections: int = 8,
    seconds: float = 5.0,
    warm_s: float = 1.0,
    watch: Mapping[str, Sequence[int]] | None = None,
) -> Measured:
    """Measure in a process of its own, after `warm_s` that do not count. `watch`: processes by the name of a sum."""
    job = {"port": port, "requests": requests, "connections": connections, "seconds": seconds, "warm_s": warm_s,
           "watch": {name: list(pids) for name, pids in (watch or {}).items()}}  # fmt: skip
    return Measured(**_in_a_process(job, seconds + warm_s))


@dataclass(frozen=True, slots=True)
class Target:
    """What one candidate of `turns` is asked, and which processes' CPU time counts as its own."""

    port: int
    requests: list[str]
    watch: Mapping[str, Sequence[int]]


def turns(
    targets: Mapping[str, Target], *, rounds: int, slot_s: float = 0.5, connections: int = 8
) -> dict[str, list[Measured]]:
    """All candidates in turn, `rounds` times after one that does not count, in short slots: forwards, backwards, …

    What disturbs a shared machine lasts longer than a slot, so that it hits neighbours alike.
    """
    jobs = {
        name: {"port": target.port, "requests": target.requests, "connections": connections, "seconds": slot_s,
               "warm_s": 0.05, "watch": {what: list(pids) for what, pids in target.watch.items()}}
        for name, target in targets.items()
    }  # fmt: skip
    found: dict[str, list[dict[str, Any]]] = _in_a_process(
        {"turns": jobs, "rounds": rounds}, rounds * len(jobs) * (slot_s + 0.2)
    )
    return {name: [Measured(**one) for one in results] for name, results in found.items()}


def _in_a_process(job: dict[str, Any], about_s: float) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", "-"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=about_s * 2 + 60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of all threads of these processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class _Load:
    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.number = itertools.count(int(time.time() * 1000) % 10**9 * 100_000)
        self.texts = itertools.cycle(job["requests"])
        self.times: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.spent: dict[str, float] = {}

    async def go(self) -> Measured:
        started = time.perf_counter()
        begin, end = started + self.job["warm_s"], started + self.job["warm_s"] + self.job["seconds"]
        connections = [self._connection(begin, end) for _ in range(self.job["connections"])]
        await asyncio.gather(self._watch(begin, end), *connections)
        times = sorted(self.times)
        if not times:
            return Measured(0.0, 0.0, 0.0, 0.0, dict(self.statuses))
        return Measured(
            per_s=len(times) / self.job["seconds"],
            p50_ms=times[len(times) // 2] * 1000,
            p99_ms=times[min(len(times) - 1, int(len(times) * 0.99))] * 1000,
            max_ms=times[-1] * 1000,
            statuses=dict(self.statuses),
            cpu_ms={name: spent * 1000 / len(times) for name, spent in self.spent.items()},
        )

    async def _watch(self, begin: float, end: float) -> None:
        watched: dict[str, list[int]] = self.job.get("watch", {})
        await asyncio.sleep(begin - time.perf_counter())
        before = {name: cpu_s(pids) for name, pids in watched.items()}
        await asyncio.sleep(end - time.perf_counter())
        self.spent = {name: cpu_s(pids) - before[name] for name, pids in watched.items()}

    async def _connection(self, begin: float, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.job["port"])
        while (now := time.perf_counter()) < end:
            writer.write(self._next())
            status = await _answer(reader)
            done = time.perf_counter()
            if begin <= now and done <= end:
                self.times.append(done - now)
                self.statuses[status] += 1
        writer.close()

    def _next(self) -> bytes:
        text = next(self.texts)
        if "{n}" in text:
            text = text.replace("{n}", str(next(self.number)))
        head, _, body = text.partition("\r\n\r\n")
        if body:
            head = _BODY_LENGTH.sub(f"Content-Length: {len(body.encode())}\r\n", head + "\r\n").removesuffix("\r\n")
        return f"{head}\r\n\r\n{body}".encode()


async def _answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    status = head[9:12].decode()
    if length := _LENGTH.search(head):
        if int(length[1]):
            await reader.readexactly(int(length[1]))
    elif b"transfer-encoding: chunked" in head.lower():
        while size := int((await reader.readline()).strip() or b"0", 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    return status


async def _take_turns(job: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in job["turns"]}
    order = list(job["turns"].items())
    for turn in range(job["rounds"] + 1):
        for name, one in order:
            measured = await _Load(one).go()
            if turn:  # the first opens connections and fills caches
                found[name].append(asdict(measured))
        order.reverse()
    return found


async def _do(job: dict[str, Any]) -> Any:
    return await _take_turns(job) if "turns" in job else asdict(await _Load(job).go())


def main() -> None:
    job = json.loads(sys.stdin.read() if sys.argv[1:] == ["-"] else sys.argv[1])
    try:
        import uvloop

        found = uvloop.run(_do(job))
    except ImportError:
        found = asyncio.run(_do(job))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

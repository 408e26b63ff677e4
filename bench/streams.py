"""What followers cost and how late they see: `python -m bench.streams [--followers 500] [--seconds 20]`.

Half of the followers read `/events`, half the log of one app, all on one node. Meanwhile an app writes a line every
tenth of a second that says when it was written, and somebody changes apps five times a second. Counted are the web
server's processor time and memory beside the same load without followers, and for each follower how long after the
commit (of an event: after its transaction began, which is earlier) and after the app's write it saw them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import time
from dataclasses import dataclass, field

import httpx
import orjson
import psutil

from bench import apps
from bench.harness import Platform, report, table
from bench.rounds import verdict

_CLOCK = """
import os, socket, threading, time
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def accept():
    while True:
        listener.accept()[0].close()
threading.Thread(target=accept, daemon=True).start()
while True:
    print(f"written {time.time():.6f}", flush=True)
    time.sleep(0.1)
"""
_SETTLE_S = 3.0


@dataclass
class Follower:
    """One open stream: how late each thing came."""

    path: str
    late_s: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    keep: bool = False

    async def run(self, port: int, token: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        writer.write(
            f"GET {self.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        try:
            while line := await reader.readline():
                if line.startswith(b"data: ") and self.keep:
                    self._take(orjson.loads(line[6:]))
        finally:
            writer.close()

    def _take(self, item: dict[str, object]) -> None:
        now = time.time()
        if "line" in item:
            word, _, written = str(item["line"]).partition(" ")
            if word == "written":
                self.late_s.append(now - float(written))
                self.ids.append(str(item["cursor"]))
        else:
            self.late_s.append(now - dt.datetime.fromisoformat(str(item["at"])).timestamp())
            self.ids.append(str(item["id"]))


@dataclass(frozen=True)
class Cost:
    cores: float
    mib: float


def cost(platform: Platform, seconds: float) -> Cost:
    processes = [psutil.Process(pid) for pid in platform.pids("web")]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    time.sleep(seconds)
    used = sum(sum(process.cpu_times()[:2]) for process in processes) - before
    return Cost(used / seconds, sum(process.memory_info().rss for process in processes) / (1 << 20))


async def write(platform: Platform, pace_s: float) -> None:
    async with httpx.AsyncClient(base_url=platform.url, headers=platform.headers, trust_env=False) as client:
        number = 0
        while True:
            number += 1
            (await client.patch("/app/clock", json={"description": str(number)})).raise_for_status()
            await asyncio.sleep(pace_s)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


async def measure(platform: Platform, count: int, seconds: float) -> tuple[Cost, Cost, list[Follower]]:
    loop = asyncio.get_running_loop()
    writing = asyncio.create_task(write(platform, 0.2))
    await asyncio.sleep(_SETTLE_S)
    alone = await loop.run_in_executor(None, cost, platform, seconds / 2)
    paths = ["/events", "/app/clock/logs?tail=1"]
    followers = [Follower(paths[i % 2]) for i in range(count)]
    tasks = [asyncio.create_task(follower.run(platform.port, platform.token)) for follower in followers]
    await asyncio.sleep(_SETTLE_S)
    for follower in followers:
        follower.keep = True
    during = await loop.run_in_executor(None, cost, platform, seconds)
    for follower in followers:
        follower.keep = False
    open_still = sum(not task.done() for task in tasks)
    if open_still != count:
        raise RuntimeError(f"{count - open_still} of {count} streams ended")
    for task in [*tasks, writing]:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, writing, return_exceptions=True)
    return alone, during, followers


def rows(alone: Cost, during: Cost, followers: list[Follower], seconds: float) -> list[list[str]]:
    events = [late for follower in followers[0::2] for late in follower.late_s]
    lines = [late for follower in followers[1::2] for late in follower.late_s]
    repeats = sum(len(follower.ids) - len(set(follower.ids)) for follower in followers)
    cores, mib = during.cores - alone.cores, during.mib - alone.mib
    p99, p95 = percentile(events, 0.99), percentile(lines, 0.95)
    return [
        ["web server, no followers", f"{alone.cores:.2f} cores, {alone.mib:.0f} MiB", ""],
        ["web server with them", f"{during.cores:.2f} cores, {during.mib:.0f} MiB", ""],
        ["more, processor", f"{cores:.2f} cores", verdict(cores, 1.0, at_most=True)],
        ["more, memory", f"{mib:.0f} MiB", verdict(mib, 200, at_most=True)],
        ["events to followers", f"{len(events) / seconds:.0f}/s, p50 {percentile(events, 0.5) * 1000:.0f} ms", ""],
        ["event, transaction's begin → client, p99", f"{p99 * 1000:.0f} ms", verdict(p99, 0.5, at_most=True)],
        ["lines to followers", f"{len(lines) / seconds:.0f}/s, p50 {percentile(lines, 0.5) * 1000:.0f} ms", ""],
        ["log line, written → client, p95", f"{p95 * 1000:.0f} ms", verdict(p95, 1.0, at_most=True)],
        ["shown twice to one follower", f"{repeats}", verdict(repeats, 0, at_most=True)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.streams")
    parser.add_argument("--followers", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--database", choices=("sqlite", "mariadb"), default="mariadb")
    options = parser.parse_args()
    with Platform(database=options.database, run=("web", "daemon", "agent", "broker", "worker")) as platform:
        with platform.client() as client:
            apps.create(client, "clock")
            archive = apps.pack({"Procfile": b"web: exec python clock.py\n", "clock.py": _CLOCK.encode()})
            apps.upload(client, "clock", archive)
            apps.wait_healthy(client, "clock", 1)
        found = asyncio.run(measure(platform, options.followers, options.seconds))
    lines = table(["what", "measured", "aim"], rows(*found, options.seconds))
    report(f"Streams: {options.followers} followers on one node", lines)


if __name__ == "__main__":
    main()

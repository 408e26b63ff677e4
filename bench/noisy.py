"""What an app that writes 50,000 lines/s does to everybody else: `python -m bench.noisy [--rate 50000] [--seconds 20]`.

One node, two apps. The neighbour writes a line every tenth of a second that says when, and answers requests. Its log is
followed, its page is asked through the ingress, the control plane is read and written: first in quiet, then while the
noisy app writes, in the same run. Afterwards the noisy app's log is read back: where its numbers have a gap must stand
a line that counts exactly so many.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import re
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import psutil

from bench import apps
from bench.harness import Platform, report, table, wait_for
from bench.rounds import verdict
from bench.streams import Follower, percentile

_NEIGHBOUR = """
import os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answering)
threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    print(f"written {time.time():.6f}", flush=True)
    time.sleep(0.1)
"""
_NOISY = """
import os, socket, sys, threading, time
state = {"on": False}
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def listen():
    while True:
        with listener.accept()[0] as caller:
            said = caller.recv(4)  # a health check says nothing
            if said in (b"go", b"stop"):
                state["on"] = said == b"go"
                caller.sendall(b"%d" % state["number"] if said == b"stop" else b"-")
state["number"] = 0
threading.Thread(target=listen, daemon=True).start()
text, each, due = "x" * 60, RATE // 50, time.monotonic()
while True:
    due = max(due + 0.02, time.monotonic() - 1)
    time.sleep(max(0, due - time.monotonic()))
    if state["on"]:
        first = state["number"] + 1
        sys.stdout.write("".join(f"line {number} {text}\\n" for number in range(first, first + each)))
        sys.stdout.flush()
        state["number"] += each
"""
_DROPPED = re.compile(r"\[omni\] (\d+) lines dropped")
_PARTS = ("web", "agent", "daemon")


@dataclass
class Phase:
    """What was seen while the noisy app was quiet, or was not. Seconds."""

    late: list[float] = field(default_factory=list)
    page: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)
    cores: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    failed: str = ""  # the last one


@dataclass(frozen=True)
class Count:
    """Of the noisy app's log: lines that are there, lines that were said to be dropped, gaps that nobody counted."""

    kept: int
    dropped: int
    notes: int
    wrong: list[str]


async def repeat(phase: Phase, kept: list[float], ask: Callable[[], Awaitable[httpx.Response]], pace_s: float) -> None:
    while True:
        begun = time.monotonic()
        try:
            (await ask()).raise_for_status()
            kept.append(time.monotonic() - begun)
        except httpx.HTTPError as error:
            phase.failures, phase.failed = phase.failures + 1, repr(error)
        await asyncio.sleep(pace_s)


async def phase(platform: Platform, host: str, seconds: float) -> Phase:
    found = Phase()
    follower = Follower("/app/neighbour/logs?tail=1")
    limits = httpx.Limits(max_keepalive_connections=4)
    async with (
        httpx.AsyncClient(headers={"Host": host}, trust_env=False, limits=limits, timeout=10) as visitor,
        httpx.AsyncClient(base_url=platform.url, headers=platform.headers, trust_env=False, timeout=10) as caller,
    ):
        page = f"http://127.0.0.1:{platform.ingress_port}/"
        number = itertools.count()
        tasks = [
            asyncio.create_task(follower.run(platform.port, platform.token)),
            asyncio.create_task(repeat(found, found.page, lambda: visitor.get(page), 0.02)),
            asyncio.create_task(repeat(found, found.read, lambda: caller.get("/app/neighbour/info"), 0.05)),
            asyncio.create_task(
                repeat(found, found.write,
                       lambda: caller.patch("/app/neighbour", json={"description": str(next(number))}), 0.2)
            ),
        ]  # fmt: skip
        await asyncio.sleep(2)  # connected, warm
        follower.keep = True
        for kept in (found.page, found.read, found.write):
            kept.clear()
        before = used(platform)
        await asyncio.sleep(seconds)
        found.cores = {name: (spent - before[name]) / seconds for name, spent in used(platform).items()}
        found.late = list(follower.late_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


def used(platform: Platform) -> dict[str, float]:
    """Processor seconds so far."""
    spent = {}
    for part in _PARTS:
        processes = [psutil.Process(pid) for pid in platform.pids(part)]
        spent[part] = sum(sum(process.cpu_times()[:2]) for process in processes)
    return spent


def tell(address: str, word: bytes) -> int:
    """`go` or `stop`; how many lines it has written by then."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(word)
        said = caller.recv(32)
    return int(said) if said.isdigit() else 0


def count(client: httpx.Client) -> Count:
    """The whole log of the noisy app, checked line by line."""
    kept = dropped = notes = last = announced = 0
    wrong: list[str] = []
    url: str | None = "/app/noisy/logs?limit=500"
    while url:
        body = apps.ask(client.get(url), 200)
        for item in body["items"]:
            if note := _DROPPED.match(item["line"]):
                announced, notes = announced + int(note[1]), notes + 1
                continue
            number = int(item["line"].split(" ", 2)[1])
            if number - last - 1 != announced:
                wrong.append(f"between {last} and {number} {announced} were said to be dropped")
            kept, dropped, last, announced = kept + 1, dropped + announced, number, 0
        url = body["next"]
    return Count(kept, dropped, notes, wrong)


def said(client: httpx.Client) -> bool:
    """Whether a line that counts dropped ones can be found by anybody who looks."""
    return bool(apps.ask(client.get("/app/noisy/logs", params={"q": "lines dropped", "tail": 1}), 200)["items"])


def rows(quiet: Phase, loud: Phase) -> list[list[str]]:
    found = []
    shares = (
        ("late", "its log line, written → follower", 0.95),
        ("page", "its page, through the ingress", 0.99),
        ("read", "a read of the control plane", 0.99),
        ("write", "a write of the control plane", 0.99),
    )
    for name, what, share in shares:
        before, during = (percentile(getattr(one, name), share) for one in (quiet, loud))
        aim = verdict(during, 1.0, at_most=True) if name == "late" else ""
        found.append(
            [
                f"{what}, p{share * 100:.0f}",
                f"{before * 1000:.0f} ms",
                f"{during * 1000:.0f} ms",
                f"{during / before:.2f}",
                aim,
            ]
        )
    for part in _PARTS:
        found.append([f"processor: {part}", f"{quiet.cores[part]:.2f}", f"{loud.cores[part]:.2f}", "", ""])
    found.append(
        ["failed requests", str(quiet.failures), str(loud.failures), "", verdict(loud.failures, 0, at_most=True)]
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.noisy")
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--database", choices=("sqlite", "mariadb"), default="sqlite")
    options = parser.parse_args()
    parts = ("web", "daemon", "agent", "broker", "worker", "ingress")
    with Platform(database=options.database, run=parts) as platform, platform.client() as client:
        for name, program in (("neighbour", _NEIGHBOUR), ("noisy", _NOISY.replace("RATE", str(options.rate)))):
            apps.create(client, name)
            archive = apps.pack({"Procfile": f"web: exec python {name}.py\n".encode(), f"{name}.py": program.encode()})
            apps.upload(client, name, archive)
            apps.wait_healthy(client, name, 1)
        host = httpx.URL(apps.ask(client.get("/app/neighbour/info"), 200)["urls"][0]).host
        address = apps.ask(client.get("/app/noisy/instances"), 200)["items"][0]["address"]
        quiet = asyncio.run(phase(platform, host, options.seconds))
        begun = time.monotonic()
        tell(address, b"go")
        wait_for(lambda: said(client), "a line about dropped lines", within_s=120, pace_s=0.5)
        visible_s = time.monotonic() - begun
        loud = asyncio.run(phase(platform, host, options.seconds))
        written, took = tell(address, b"stop"), time.monotonic() - begun
        counted = count(client)
        with contextlib.suppress(RuntimeError):
            apps.delete(client, "noisy")
    lines = table(["what", "quiet", "beside it", "ratio", "aim"], rows(quiet, loud))
    lines += [
        "",
        f"- the noisy app wrote {written} lines, {written / took:.0f}/s; "
        f"the first line about dropped ones was there after {visible_s:.0f} s",
        f"- {counted.kept} lines kept so far, {counted.dropped} dropped, said in {counted.notes} lines; "
        f"gaps that are not counted right: {len(counted.wrong)} {verdict(len(counted.wrong), 0, at_most=True)}",
    ]  # fmt: skip
    lines += [f"- {one}" for one in [*counted.wrong[:5], quiet.failed, loud.failed] if one]
    report(f"An app that writes {options.rate} lines/s, and its neighbour ({options.database})", lines)


if __name__ == "__main__":
    main()

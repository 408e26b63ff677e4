"""What the ingress costs: `python -m bench.ingress [--seconds 4] [--json FILE]`.

One run measures the floor (a backend asked directly) and the ingress with 1, 100 and 1,000 apps, with the same client
and backends, interleaved; prints requests/s, latency and CPU per request, and the ratios to the floor. Caddy remembers
the SRV answers of 100 names and evicts at random: the rows for 1,000 apps show what that costs when all are asked alike
(the worst case) and when few are asked often (Zipf, as in life).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from agent.ingress.counts import Counter
from agent.ingress.testbed.bed import Bed
from agent.ingress.testbed.control import ControlPlane
from agent.routing import HostRoute, Target
from bench.harness import report, table

CONNECTIONS = 16
PACED_PER_S = 400
INSTANCES = 3


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    mode: str
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    caddy_us: float | None = None
    ingress_us: float | None = None


async def one_client(
    port: int, hosts: list[str], until: float, pace_s: float, times: list[float], bad: list[str]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    pick = random.Random()
    due = time.perf_counter() + pick.random() * pace_s
    while time.perf_counter() < until:
        if pace_s:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += pace_s
        started = time.perf_counter()
        writer.write(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % pick.choice(hosts).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(size)
        times.append(time.perf_counter() - started)
        if b" 200 " not in head[:16]:
            bad.append(head[:40].decode())
    writer.close()


async def load(port: int, hosts: list[str], seconds: float, pace_s: float) -> tuple[list[float], int, float]:
    times: list[float] = []
    bad: list[str] = []
    started = time.perf_counter()
    until = started + seconds
    await asyncio.gather(*(one_client(port, hosts, until, pace_s, times, bad) for _ in range(CONNECTIONS)))
    return times, len(bad), time.perf_counter() - started


def client_process(port: int, hosts: list[str], seconds: float, pace_s: float) -> dict[str, Any]:
    """The client in a process of its own, so that its work is not ours."""
    spec = json.dumps([port, hosts, seconds, pace_s])
    command = [sys.executable, "-m", "bench.ingress", "--client"]
    done = subprocess.run(command, input=spec.encode(), capture_output=True, timeout=seconds + 60, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def client_main() -> None:
    import uvloop

    port, hosts, seconds, pace_s = json.loads(sys.stdin.read())
    uvloop.run(load(port, hosts, 0.5, pace_s))  # warm
    times, bad, spent = uvloop.run(load(port, hosts, seconds, pace_s))
    times.sort()
    print(
        json.dumps(
            {
                "requests_per_s": len(times) / spent,
                "p50_ms": statistics.median(times) * 1000,
                "p99_ms": times[int(len(times) * 0.99)] * 1000,
                "max_ms": times[-1] * 1000,
                "errors": bad,
                "n": len(times),
            }
        )
    )


def cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def measure(what: str, port: int, hosts: list[str], seconds: float, mode: str, pids: tuple[int, int] | None) -> Row:
    pace_s = CONNECTIONS / PACED_PER_S if mode == "paced" else 0.0
    before = [cpu_s(pid) for pid in pids or ()]
    found = client_process(port, hosts, seconds, pace_s)
    spent = [cpu_s(pid) - was for pid, was in zip(pids or (), before, strict=True)]
    n = found.pop("n") * (seconds + 0.5) / seconds  # the warm-up is in the CPU time too
    costs = [round(used / n * 1e6, 1) for used in spent] or [None, None]
    figures = {key: round(value, 2) for key, value in found.items()}
    return Row(what, mode, **figures, caddy_us=costs[0], ingress_us=costs[1])


def routes(apps: int, ports: list[int]) -> list[HostRoute]:
    """Every app has its own instances by name, though they share backends: Caddy pools connections by name."""
    found = []
    for app in range(1, apps + 1):
        targets = [Target(app * 10 + i, "127.0.0.1", port) for i, port in enumerate(ports)]
        found.append(HostRoute(f"app{app}.localhost", app, False, targets))
    return found


def counting_us() -> float:
    """CPU per line of the access log."""
    line = b'{"ts":%d.35,"duration":0.0046,"size":2,"status":200,"ms":1.912541,"upstream":"i%d-7.7f000001.omni.:34789"}'
    lines = [line % (1_795_360_000 + i // 100, i % 50) for i in range(50_000)]
    counter = Counter(10.0)
    started = time.process_time()
    for one in lines:
        counter.add(one)
    return (time.process_time() - started) / len(lines) * 1e6


def run(seconds: float, rounds: int) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as directory:
        control = ControlPlane()
        bed = Bed(Path(directory), [control.url], log_level="info")
        try:
            ports = [bed.backend().port for _ in range(INSTANCES)]
            control.publish(routes(1, ports))
            bed.start()
            assert bed.process is not None
            pids = (bed.caddy_pid(), bed.process.pid)
            for _ in range(rounds):
                for mode in ("paced", "full"):
                    rows.append(measure("direct", ports[0], ["app1.localhost"], seconds, mode, None))
                    for apps in (1, 100, 1000):
                        control.publish(routes(apps, ports))
                        hosts = [f"app{app}.localhost" for app in range(1, apps + 1)]
                        bed.until_served(hosts[-1])
                        rows.append(measure(f"{apps} apps", bed.port, hosts, seconds, mode, pids))
                    often = [host for rank, host in enumerate(hosts, 1) for _ in range(max(1, 1000 // rank))]
                    rows.append(measure("1000 Zipf", bed.port, often, seconds, mode, pids))
        finally:
            bed.close()
            control.close()
    return rows


def summary(rows: list[Row]) -> list[Row]:
    """The median of the rounds."""
    found = []
    for key in dict.fromkeys((row.what, row.mode) for row in rows):
        same = [asdict(row) for row in rows if (row.what, row.mode) == key]
        middle: dict[str, Any] = {
            name: statistics.median(row[name] for row in same) if same[0][name] is not None else None
            for name in same[0]
            if name not in ("what", "mode")
        }
        found.append(Row(*key, **middle))
    return found


def shown(rows: list[Row], line_us: float) -> list[str]:
    """The table for RESULTS.md; ratios are to `direct` in the same mode."""
    floors = {row.mode: row for row in rows if row.what == "direct"}
    head = ["what", "mode", "req/s", "of direct", "p50 / p99 ms", "p99 of direct", "errors", "caddy µs", "ingress µs"]
    cells = [
        [row.what, row.mode, f"{row.requests_per_s:.0f}", f"{row.requests_per_s / floors[row.mode].requests_per_s:.2f}",
         f"{row.p50_ms:.2f} / {row.p99_ms:.2f}", f"{row.p99_ms / floors[row.mode].p99_ms:.2f}", f"{row.errors:.0f}",
         f"{row.caddy_us or 0:.0f}", f"{row.ingress_us or 0:.1f}"]
        for row in rows
    ]  # fmt: skip
    about = (
        f"{CONNECTIONS} keep-alive connections, {INSTANCES} instances an app, paced = {PACED_PER_S} requests/s in all"
    )
    return [about, "", *table(head, cells), "", f"counting a request: {line_us:.2f} µs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        client_main()
        return
    rows = summary(run(options.seconds, options.rounds))
    line_us = counting_us()
    report("Ingress: requests through Caddy against the backend itself", shown(rows, line_us))
    if options.json:
        options.json.write_text(json.dumps({"rows": [asdict(row) for row in rows], "counting_us": line_us}, indent=1))


if __name__ == "__main__":
    main()

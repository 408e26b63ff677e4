"""What watching costs: `python -m bench.checks [--services 5000] [--interval 10] [--seconds 60]`.

One node with a platform of its own watches services that all stand behind one server: half of them by HTTP, half by
TCP. That server notes when each HTTP check comes: what is later than the interval after the one before is the lag. Then
it is killed: until when is every one of the services unhealthy, how many alerts are there (they all depend on one), and
until when is it all well again?
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import httpx
import psutil

from bench.harness import PROJECT, Platform, free_ports, report, table, wait_for
from bench.rounds import verdict

_LAG_GOAL_S = 1.0
_SEED = """
from consensus import gate
from omni.kernel import clock
from services.models import Service
def row(number):
    http = {"type": "http", "url": "http://127.0.0.1:HTTP/%d" % number, "method": "GET", "status_min": 200,
            "status_max": 399, "contains": ""}
    check = http if number % 2 else {"type": "tcp", "host": "127.0.0.1", "port": TCP}
    now = clock.now()
    return Service(name="bench-%05d" % number if number else "bench-root", source="api", interval_s=INTERVAL,
                   timeout_s=3.0, healthy_threshold=2, unhealthy_threshold=3, start_period_s=0.0, check_spec=check,
                   depends_on=["bench-root"] if number else [], state_since=now, defined_at=now, created_at=now,
                   updated_at=now)
with gate.maintenance("bench"):
    Service.objects.bulk_create([row(number) for number in range(COUNT)], batch_size=500)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.checks")
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--interval", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--target", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.target:
        asyncio.run(target(*options.target))
        return
    bench(options.services, options.interval, options.seconds)


def bench(count: int, interval_s: float, seconds: float) -> None:
    http_port, tcp_port = free_ports(5)[3:]
    config = {"outgoing": {"allow": "127.0.0.0/8"}}
    with Platform(run=("web", "daemon", "agent", "broker"), config=config) as platform, platform.client() as client:
        server = Target(http_port, tcp_port)
        try:
            rest = usage(platform, seconds / 2)
            code = _SEED.replace("HTTP", str(http_port)).replace("TCP", str(tcp_port))
            platform.manage(code.replace("INTERVAL", str(interval_s)).replace("COUNT", str(count)))
            healthy = until(client, platform, "healthy", count)
            server.forget()
            busy = usage(platform, seconds)
            arrivals, late = server.noted()
            server.stop()
            unhealthy = until(client, platform, "unhealthy", count)
            wait_for(lambda: alerts(client), "an alert")
            opened = alerts(client)
            server.start()
            again = until(client, platform, "healthy", count)
            wait_for(lambda: not alerts(client), "the end of the alert")
        finally:
            server.stop()
    told(count, interval_s, seconds, arrivals, late, rest, busy, (healthy, unhealthy, again), opened)


def told(
    count: int, interval_s: float, seconds: float, arrivals: dict[str, list[float]], late: list[float],
    rest: dict[str, float], busy: dict[str, float], until_s: tuple[float, float, float], opened: list[str],
) -> None:  # fmt: skip
    lags = sorted(max(0.0, b - a - interval_s) for times in arrivals.values() for a, b in itertools.pairwise(times))
    came, due = sum(map(len, arrivals.values())), count // 2 * seconds / interval_s
    p50, p99 = lags[len(lags) // 2], lags[int(len(lags) * 0.99)]
    rows = [
        ["checks by HTTP that came, of those due", f"{came} of {due:.0f} ({came / due:.0%})"],
        ["lag p50", f"{p50 * 1000:.0f} ms"],
        ["lag p99", f"{p99 * 1000:.0f} ms {verdict(p99, _LAG_GOAL_S, at_most=True)} (aim below 1 s)"],
        ["floor: an empty timer beside it, p99", f"{sorted(late)[int(len(late) * 0.99)] * 1000:.0f} ms"],
        ["lag, longest", f"{lags[-1] * 1000:.0f} ms"],
        *(
            [f"{name}: processor, % of a core", f"{busy[name]:.1f} (without services {rest[name]:.1f})"]
            for name in busy
        ),
        ["registered → every one healthy", f"{until_s[0]:.1f} s"],
        [f"server killed → every one unhealthy (due after 3 times {interval_s:g} s)", f"{until_s[1]:.1f} s"],
        ["alerts of them", f"{len(opened)}: {', '.join(opened[:3])}"],
        [f"server back → every one healthy (due after 2 times {interval_s:g} s)", f"{until_s[2]:.1f} s"],
    ]
    head = [f"{count:,} checks every {interval_s:g} s on one node, {seconds:g} s", "measured"]
    report("Checks: the check engine of one node", table(head, rows))


def usage(platform: Platform, seconds: float) -> dict[str, float]:
    """Percent of a core by what the node runs, and its database."""
    names = ("agent", "web", "daemon", "database")
    before = {name: sum(map(_cpu_s, platform.pids(name))) for name in names}
    begun = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    return {name: (sum(map(_cpu_s, platform.pids(name))) - before[name]) / took * 100 for name in names}


def _cpu_s(pid: int) -> float:
    try:
        spent = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent.user + spent.system)


def until(client: httpx.Client, platform: Platform, state: str, count: int) -> float:
    """Seconds until so many are in that state."""
    begun = time.monotonic()
    query = f"SELECT COUNT(*) FROM services_service WHERE name LIKE 'bench-%' AND state = '{state}'"  # noqa: S608
    found: Callable[[], bool] = lambda: int(platform.sql(query)) == count  # noqa: E731
    wait_for(found, f"{count} {state} services", lambda: client.get("/services?q=bench&limit=3").text[:1000], 240, 0.25)
    return time.monotonic() - begun


def alerts(client: httpx.Client) -> list[str]:
    """Names of the services that have one."""
    items = client.get("/alerts?status=active&limit=500").json()["items"]
    return [one["service"]["name"] for one in items if one["service"]["name"].startswith("bench-")]


class Target:
    """The server behind all services, a process of its own."""

    def __init__(self, http_port: int, tcp_port: int) -> None:
        self._ports = (http_port, tcp_port)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "bench.checks", "--target", *map(str, self._ports)]
        self._process = subprocess.Popen(command, cwd=PROJECT)
        wait_for(lambda: self._asked("/ready") is not None, "the server behind the services")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        self._asked("/forget")

    def noted(self) -> tuple[dict[str, list[float]], list[float]]:
        """When each check came; by how much a timer of the server itself was late."""
        found = self._asked("/arrivals")
        assert found is not None
        body = json.loads(found)
        return body["came"], body["late"]

    def _asked(self, path: str) -> bytes | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self._ports[0]}{path}", timeout=30, trust_env=False).content
        except httpx.HTTPError:
            return None


async def target(http_port: int, tcp_port: int) -> None:
    """Answers everything at once and notes when what was asked for."""
    came: dict[str, list[float]] = defaultdict(list)
    late: list[float] = []

    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode()
        except (asyncio.IncompleteReadError, ConnectionError):  # whoever asked has given up
            writer.close()
            return
        body = b"fine"
        if path == "/arrivals":
            body = json.dumps({"came": came, "late": late}).encode()
        elif path == "/forget":
            came.clear()
            late.clear()
        elif path != "/ready":
            came[path].append(time.monotonic())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async def tcp(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    servers = [
        await asyncio.start_server(http, "127.0.0.1", http_port, backlog=4096),
        await asyncio.start_server(tcp, "127.0.0.1", tcp_port, backlog=4096),
    ]
    parent = os.getppid()
    while os.getppid() == parent:  # a bench that was killed leaves nothing behind
        begun = time.monotonic()
        await asyncio.sleep(0.05)
        late.append(time.monotonic() - begun - 0.05)  # the floor: a timer that does nothing
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()

"""From an accepted deploy to healthy: `python -m bench.deploy [--repeat 5]`.

The floor spawns the same processes by hand: the same program with its own PORT, until its health page answers. Both
are measured in turn, for 1 and for 20 instances of examples/hello.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time

import httpx

from bench import apps
from bench.harness import Platform, free_ports, report, table, wait_for

EVERYTHING = ("web", "daemon", "agent", "broker", "worker", "ingress")
_PEER = {1: "Swarm 0.52 s", 20: "Swarm 50 tasks 6.1 s"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.deploy")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--database", choices=("mariadb", "sqlite"), default="mariadb")
    options = parser.parse_args()
    rows = []
    with (
        Platform(run=EVERYTHING, database=options.database) as platform,
        platform.client() as client,
    ):
        for count in (1, 20):
            ours, floor = [], []
            for number in range(options.repeat):
                floor.append(by_hand(count))
                ours.append(by_platform(client, f"hello-{count}-{number}", count))
            rows.append(_row(count, ours, floor))
        build_s = apps_build(client, options.repeat)
    head = [
        "instances",
        "deploy → healthy, s (range)",
        "by hand, s",
        "difference, s",
        "ratio",
        "published peer",
    ]
    lines = table(head, rows)
    lines += ["", f"upload accepted → release (examples/hello), median of {options.repeat}: {build_s:.2f} s"]
    report(f"Deploy: accepted to healthy against spawning by hand ({options.database})", lines)


def by_platform(client: httpx.Client, name: str, count: int) -> float:
    """Seconds from the 202 of `deploy` to `count` healthy instances."""
    apps.create(client, name, instances=count)
    apps.upload(client, name, apps.pack(apps.folder(apps.HELLO)), deploy=False)
    apps.ask(client.post(f"/app/{name}/release/1/deploy"), 202)
    took = apps.wait_healthy(client, name, count)
    apps.delete(client, name)
    return took


def by_hand(count: int) -> float:
    """Seconds until `count` processes, spawned one after the other, answer their health page."""
    ports = free_ports(count)
    started = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "app.py"], cwd=apps.HELLO, env={**os.environ, "PORT": str(port)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]  # fmt: skip
    try:
        with httpx.Client(trust_env=False, timeout=2) as client:
            for port in ports:
                wait_for(lambda port=port: _answers(client, port), f"port {port}")  # type: ignore[misc]
        return time.monotonic() - started
    finally:
        for process in running:
            process.kill()
            process.wait()


def apps_build(client: httpx.Client, repeat: int) -> float:
    archive = apps.pack(apps.folder(apps.HELLO))
    apps.create(client, "builds")
    return statistics.median(
        apps.upload(client, "builds", archive, version=str(number), deploy=False) for number in range(repeat)
    )


def _answers(client: httpx.Client, port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    return False


def _row(count: int, ours: list[float], floor: list[float]) -> list[str]:
    mine, hand = statistics.median(ours), statistics.median(floor)
    spread = f"{mine:.2f} ({min(ours):.2f} to {max(ours):.2f})"
    return [str(count), spread, f"{hand:.2f}", f"{mine - hand:.2f}", f"{mine / hand:.1f}", _PEER[count]]


if __name__ == "__main__":
    main()

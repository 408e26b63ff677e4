"""Rollouts against the floor of starting and stopping the same processes by hand: `python -m bench.rollout`.

Both are measured in turn, in the same run: starting 1, 10 and 50 instances until all serve, scaling 10 → 50, updating
10 under load with the requests that failed, an instance that is killed until its successor serves, a node that is lost
until its instances are replaced; and what a request through the ingress costs against one to the instance itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx

from bench import apps, node_lost
from bench.callers import Answered, Callers
from bench.harness import PROJECT, Platform, free_ports, report, table, wait_for
from bench.ingress import PACED_PER_S, client_process

EVERYTHING = ("web", "daemon", "agent", "broker", "worker", "ingress")
APP = PROJECT / "examples" / "misbehaving"
CHECK = {"type": "http", "path": "/healthz"}
COUNTS = (1, 10, 50)
UPDATED = 10


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rollout")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--updates", type=int, default=5, help="consecutive updates under load")
    parser.add_argument("--rate", type=float, default=250.0, help="requests/s during the updates")
    parser.add_argument("--database", choices=("mariadb", "sqlite"), default="mariadb")
    options = parser.parse_args()
    with Platform(run=EVERYTHING, database=options.database) as platform, platform.client() as client:
        rows = [*starts(client, options.repeat), scaling(client, options.repeat)]
        updated, told = updates(platform, client, options.updates, options.rate)
        rows += [updated, replacement(platform, client, options.repeat)]
        told += through_ingress(platform, client, options.repeat)
    rows.append(lost_node(options.repeat))
    head = ["what", "platform, s (range)", "by hand, s (range)", "ratio", "difference, s"]
    report(f"Rollouts against the same processes by hand ({options.database})", [*table(head, rows), "", *told])


# -- starting and scaling


def starts(client: httpx.Client, repeat: int) -> Iterator[list[str]]:
    for count in COUNTS:
        ours, floor = [], []
        for number in range(repeat):
            with by_hand(count) as took:
                floor.append(took)
            name = f"start-{count}-{number}"
            deployed(client, name, 0)
            begun = time.monotonic()
            apps.ask(client.post(f"/app/{name}/scale", json={"instances": count}), 202)
            apps.wait_healthy(client, name, count)
            ours.append(time.monotonic() - begun)
            apps.delete(client, name)
        yield row(f"start {count}", ours, floor)


def scaling(client: httpx.Client, repeat: int) -> list[str]:
    ours, floor = [], []
    for number in range(repeat):
        with by_hand(10), by_hand(40) as took:
            floor.append(took)
        name = f"scale-{number}"
        deployed(client, name, 10)
        begun = time.monotonic()
        apps.ask(client.post(f"/app/{name}/scale", json={"instances": 50}), 202)
        apps.wait_healthy(client, name, 50)
        ours.append(time.monotonic() - begun)
        apps.delete(client, name)
    return row("scale 10 → 50", ours, floor)


# -- updating under load


def updates(platform: Platform, client: httpx.Client, count: int, rate: float) -> tuple[list[str], list[str]]:
    """By hand: ten new ones are started until they serve, then the old ones are ended."""
    deployed(client, "updated", UPDATED)
    floor = []
    for _ in range(min(count, 5)):
        with by_hand(UPDATED):
            begun = time.monotonic()
            with by_hand(UPDATED) as _:
                pass
            floor.append(time.monotonic() - begun)
    ours, seen = [], []
    with Callers(platform.ingress_port, f"updated.{_domain(client)}", rate=rate) as callers:
        wait_for(lambda: callers.take().statuses.get("200"), "the first answers", within_s=30, pace_s=0.5)
        calm = measured_for(callers, 5.0)
        for _ in range(count):
            begun = time.monotonic()
            made = apps.ask(client.patch("/app/updated", json={"env": {"N": str(time.monotonic_ns())}}), 200)
            ended(client, made["deployment"])
            ours.append(time.monotonic() - begun)
            seen.append(callers.take())
        seen.append(measured_for(callers, 5.0))  # what the last one left behind
    failed = sum(one.failed for one in seen)
    requests, seconds = sum(one.requests for one in seen), sum(one.seconds for one in seen)
    told = [
        f"{count} updates in a row under {requests / seconds:.0f} requests/s (keep-alive, 4 callers of a 2 s page "
        f"among them): {failed} of {requests} failed {_odd(seen)}; aim: 0",
        f"p99 of quick requests: {statistics.median(one.p99_ms for one in seen):.0f} ms during updates, "
        f"{calm.p99_ms:.0f} ms before",
    ]
    apps.delete(client, "updated")
    return row(f"update {UPDATED} under load", ours, floor), told


def measured_for(callers: Callers, seconds: float) -> Answered:
    callers.take()
    time.sleep(seconds)
    return callers.take()


def _odd(seen: list[Answered]) -> str:
    odd = {status: sum(one.statuses[status] for one in seen) for one in seen for status in one.statuses}
    odd.pop("200", None)
    return f"({', '.join(f'{status}: {n}' for status, n in sorted(odd.items()))})" if odd else ""


# -- an instance that is killed


def replacement(platform: Platform, client: httpx.Client, repeat: int) -> list[str]:
    """From SIGKILL to the app itself to a healthy instance again. By hand: the app's own start."""
    deployed(client, "killed", 1)
    ours, floor = [], []
    for _ in range(repeat):
        with by_hand(1) as took:
            floor.append(took)
        item = apps.ask(client.get("/app/killed/instances"), 200)["items"][0]
        begun = time.monotonic()
        _kill(client, item["id"])
        wait_for(lambda item=item: _again(client, item), "the instance again", within_s=60, pace_s=0.02)  # type: ignore[misc]
        ours.append(time.monotonic() - begun)
        time.sleep(2)
    apps.delete(client, "killed")
    shown = row("killed → serving", ours, floor)
    worst, aim = statistics.median(ours), 1.5 * statistics.median(floor) + 1
    shown[0] += f" (aim {aim:.2f}: {'met' if worst <= aim else 'MISSED'})"
    return shown


def _kill(client: httpx.Client, instance_id: int) -> None:
    found = apps.ask(client.get(f"/app/killed/instances/{instance_id}/details"), 200)
    port = int(found["address"].rpartition(":")[2])
    pid = subprocess.run(
        ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, timeout=10, check=True
    ).stdout.partition("pid=")[2].partition(",")[0]  # fmt: skip
    os.kill(int(pid), signal.SIGKILL)


def _again(client: httpx.Client, before: dict[str, Any]) -> bool:
    items = apps.ask(client.get("/app/killed/instances"), 200)["items"]
    return any(
        i["health"] == "healthy" and (i["id"], i["restarts"]) != (before["id"], before["restarts"]) for i in items
    )


# -- a node that is lost


def lost_node(repeat: int) -> list[str]:
    """By hand: starting as many as were lost."""
    ours, lost = node_lost.measured(APP, repeat, CHECK)
    floor = []
    for count in lost:
        with by_hand(count) as took:
            floor.append(took)
    what = f"node with {statistics.median(lost):.0f} lost → replaced (its lease: {node_lost.NODE_LEASE_S:g} s of it)"
    return row(what, ours, floor)


# -- the way through the ingress


def through_ingress(platform: Platform, client: httpx.Client, repeat: int, seconds: float = 3.0) -> list[str]:
    """In turn: the instance asked directly, and through the ingress; keep-alive, as fast as possible and at a pace."""
    deployed(client, "through", 1)
    address = apps.ask(client.get("/app/through/instances"), 200)["items"][0]["address"]
    host = httpx.URL(apps.ask(client.get("/app/through/info"), 200)["urls"][0]).host
    ports = {"direct": int(address.rpartition(":")[2]), "ingress": platform.ingress_port}
    told = []
    for mode, pace_s in (("full", 0.0), (f"{PACED_PER_S}/s", 16 / PACED_PER_S)):
        rates, tails, bad = [], [], 0
        for _ in range(max(repeat, 3)):
            found = {way: client_process(port, [host], seconds, pace_s) for way, port in ports.items()}
            rates.append(found["ingress"]["requests_per_s"] / found["direct"]["requests_per_s"])
            tails.append(found["ingress"]["p99_ms"] / found["direct"]["p99_ms"])
            bad += found["ingress"]["errors"]
        told.append(
            f"ingress against the instance itself, {mode}: {statistics.median(rates):.2f} of its requests/s, "
            f"{statistics.median(tails):.2f} times its p99, {bad} errors"
        )
    apps.delete(client, "through")
    return told


# -- shared


def deployed(client: httpx.Client, name: str, count: int) -> None:
    """The app with `count` healthy instances; none: built and ready to be scaled."""
    strategy = {"watch_s": 0}  # what is killed here is killed on purpose
    apps.create(client, name, instances=count, memory_mb=64, health_check=CHECK, strategy=strategy)
    apps.upload(client, name, apps.pack(apps.folder(APP)), deploy=False)
    made = apps.ask(client.post(f"/app/{name}/release/1/deploy"), 202)
    ended(client, made)
    apps.wait_healthy(client, name, count)


def ended(client: httpx.Client, deployment: dict[str, Any]) -> None:
    path = deployment["links"]["self"]

    def over() -> bool:
        found = apps.ask(client.get(path), 200)
        if found["status"] in ("failed", "reverting", "reverted", "cancelled"):
            raise RuntimeError(f"the deployment {found['status']}: {found['error']} {found['evidence']}")
        return bool(found["status"] == "succeeded")

    wait_for(over, f"the end of {path}", within_s=180, pace_s=0.02)


@contextlib.contextmanager
def by_hand(count: int) -> Iterator[float]:
    """`count` processes, spawned one after the other until all answer their health page; yields the seconds it took."""
    ports = free_ports(count)
    begun = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "app.py"], cwd=APP, env={**os.environ, "PORT": str(port)}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for port in ports
    ]  # fmt: skip
    try:
        with httpx.Client(trust_env=False, timeout=2) as client:
            for port in ports:
                wait_for(lambda port=port: _answers(client, port), f"port {port}", pace_s=0.02)  # type: ignore[misc]
        yield time.monotonic() - begun
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(10)


def _answers(client: httpx.Client, port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    return False


def _domain(client: httpx.Client) -> str:
    url = apps.ask(client.get("/app/updated/info"), 200)["urls"][0]
    return httpx.URL(url).host.partition(".")[2]


def row(what: str, ours: list[float], floor: list[float]) -> list[str]:
    mine, hand = statistics.median(ours), statistics.median(floor)
    return [
        what, f"{mine:.2f} ({min(ours):.2f} to {max(ours):.2f})", f"{hand:.2f} ({min(floor):.2f} to {max(floor):.2f})",
        f"{mine / hand:.1f}", f"{mine - hand:.2f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()

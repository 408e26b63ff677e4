"""The docker runtime against Docker Swarm mode, on one engine, in turn, in the same run: `python -m bench.vs_swarm`.

Starting 1, 10 and 50 instances until all serve, scaling 10 → 50, updating 10 under load with the requests that failed,
a container that is killed until its successor serves, a host that is lost until its instances are replaced. The engine
is one of the bench's own (three, where a host is lost); both run the same program from the same files of this host,
each in a network of its app's own, and both are looked at as often. Who goes first takes turns. The platform's
instances serve when its API calls them healthy, Swarm's when their health page answers.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from bench import apps, swarm_lost
from bench.callers import Answered, Callers
from bench.harness import PROJECT, Platform, report, table, wait_for
from bench.rollout import EVERYTHING, ended, row
from bench.swarm_mode import LOOK_S, SwarmMode, answered, free_address, p99_ms
from omni.testing.docker_engine import DockerEngine, missing
from omni.testing.hosts import NoNamespaces
from omni.testing.several_hosts import NotStarted

APP = PROJECT / "examples" / "misbehaving"
CHECK = {"type": "http", "path": "/healthz"}
COUNTS = (1, 10, 50)
UPDATED = 10
CALM_S = 5.0
SETTLE_S = 2.0  # a build, or the other side's end, leaves work behind that is nobody's start
_BRIDGE = Path("/sys/class/net/docker_gwbridge")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.vs_swarm")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--updates", type=int, default=20, help="consecutive updates under load")
    parser.add_argument("--rate", type=float, default=250.0, help="requests/s during the updates")
    parser.add_argument("--most", type=int, default=50, help="instances at most")
    parser.add_argument("--minutes", type=float, default=16.0, help="no part is begun later than that")
    parser.add_argument("--only", default="", help="parts whose name begins so: start, killed, update, scale, node")
    parser.add_argument("--database", choices=("mariadb", "sqlite"), default="mariadb")
    options = parser.parse_args()
    if why := missing():
        sys.exit(why)
    begun = time.monotonic()
    rows: list[list[str]] = []
    told: list[str] = []
    with _engine() as (engine, swarm):
        given = {"agent": {"docker": engine.url}}
        platform = Platform(run=EVERYTHING, database=options.database, config=given)
        with platform, platform.client() as client:
            wait_for(lambda: _has_docker(client), "the node's docker runtime")
            both = Both(client, swarm)
            both.started("warm", 1, 1)  # of the first start on either side nobody knows what it is that it waits for
            for what, measure in _parts(both, platform, engine, options, told).items():
                if not what.startswith(options.only):
                    continue
                if time.monotonic() - begun > options.minutes * 60:
                    rows.append([what, *["null"] * 4])
                    told.append(f"{what}: null, for {options.minutes:g} min were over before it could begin.")
                    continue
                rows.append(measure(what))
                print(f"{time.monotonic() - begun:.0f} s: {rows[-1]}", file=sys.stderr, flush=True)
    if "node lost".startswith(options.only):
        rows.append(_lost(time.monotonic() - begun, options, told))
    told += [
        "Swarm: start-first by 3 (the platform's default surge of 10), a health check every second, restart delay 0, "
        "stop grace 10 s; callers in its own overlay, by its own names (dnsrr): the mesh needs IPVS, and is not used.",
    ]
    head = ["what", "docker runtime, s (range)", "Swarm mode, s (range)", "ratio", "difference, s"]
    report("The docker runtime against Docker Swarm mode", [*table(head, rows), "", *told])


def _lost(so_far_s: float, options: argparse.Namespace, told: list[str]) -> list[str]:
    what = "node lost → replaced"
    if so_far_s > options.minutes * 60:
        told.append(f"{what}: null, for {options.minutes:g} min were over before it could begin.")
        return [what, *["null"] * 4]
    try:
        ours, theirs = swarm_lost.measured(APP, deployed)
    except (RuntimeError, OSError, NotStarted, NoNamespaces, subprocess.SubprocessError) as error:
        told.append(f"{what}: null: {str(error).splitlines()[0][:200]}")
        return [what, *["null"] * 4]
    told.append(
        f"{what}: three hosts in namespaces, {swarm_lost.INSTANCES} instances; SIGKILL to a host's engine, platform "
        "and containers; each side by its defaults (a lease of 5 s; three heartbeats of 5 s)."
    )
    return row(what, [ours], [theirs])


def _parts(
    both: Both, platform: Platform, engine: DockerEngine, options: argparse.Namespace, told: list[str]
) -> dict[str, Callable[[str], list[str]]]:
    """Name → what measures it, the shortest first."""
    low, high, repeat = min(10, options.most), options.most, options.repeat

    def start(what: str) -> list[str]:
        count = int(what.split()[1])
        return row(what, *both.started(f"start-{count}", count, repeat))

    found: dict[str, Callable[[str], list[str]]] = {
        f"start {count}": start for count in sorted({min(count, high) for count in COUNTS})
    }
    last = found.popitem()
    found["killed → serving"] = lambda what: row(what, *killed(both.client, both.swarm, engine, max(repeat, 3)))
    found[f"update {min(UPDATED, high)} under load"] = lambda what: updates(what, platform, both, options, told)
    found |= [last]
    found[f"scale {low} → {high}"] = lambda what: row(what, *both.scaled(low, high, repeat))
    return found


class Both:
    """One after the other, and who is first takes turns."""

    def __init__(self, client: httpx.Client, swarm: SwarmMode) -> None:
        self.client, self.swarm = client, swarm

    def started(self, name: str, count: int, repeat: int) -> tuple[list[float], list[float]]:
        """Seconds from asking for `count` of an app that is built until all serve: ours, and Swarm's."""

        def ours(number: int) -> float:
            app = f"{name}-{number}"
            deployed(self.client, app, 0)
            time.sleep(SETTLE_S)
            took = _scaled(self.client, app, count)
            apps.delete(self.client, app)
            return took

        def theirs(_: int) -> float:
            time.sleep(SETTLE_S)
            begun = time.monotonic()
            self.swarm.create("started", count)
            self.swarm.wait_serving("started", count)
            took = time.monotonic() - begun
            self.swarm.remove("started")
            return took

        return _in_turns(ours, theirs, repeat)

    def scaled(self, low: int, high: int, repeat: int) -> tuple[list[float], list[float]]:
        def ours(number: int) -> float:
            app = f"scale-{number}"
            deployed(self.client, app, low)
            time.sleep(SETTLE_S)
            took = _scaled(self.client, app, high)
            apps.delete(self.client, app)
            return took

        def theirs(_: int) -> float:
            self.swarm.create("scaled", low)
            self.swarm.wait_serving("scaled", low)
            time.sleep(SETTLE_S)
            begun = time.monotonic()
            self.swarm.scale("scaled", high)
            self.swarm.wait_serving("scaled", high)
            took = time.monotonic() - begun
            self.swarm.remove("scaled")
            return took

        return _in_turns(ours, theirs, repeat)


def _in_turns(
    ours: Callable[[int], float], theirs: Callable[[int], float], repeat: int
) -> tuple[list[float], list[float]]:
    mine: list[float] = []
    swarms: list[float] = []
    pairs = ((ours, mine), (theirs, swarms))
    for number in range(repeat):
        for measure, kept in pairs if number % 2 else reversed(pairs):
            kept.append(measure(number))
    return mine, swarms


def _scaled(client: httpx.Client, name: str, count: int) -> float:
    begun = time.monotonic()
    apps.ask(client.post(f"/app/{name}/scale", json={"instances": count}), 202)
    apps.wait_healthy(client, name, count, within_s=180, pace_s=LOOK_S)
    return time.monotonic() - begun


# -- updating under load


def updates(what: str, platform: Platform, both: Both, options: argparse.Namespace, told: list[str]) -> list[str]:
    """One after the other, so that neither takes the other's processor."""
    count = min(UPDATED, options.most)
    ours, mine = _ours_updated(platform, both.client, count, options)
    theirs, swarms = _swarm_updated(both.swarm, count, options)
    for whose, times, (statuses, seconds, p99) in (("the platform", ours, mine), ("Swarm", theirs, swarms)):
        requests = sum(statuses.values())
        odd = ", ".join(f"{status}: {n}" for status, n in sorted(statuses.items()) if status != "200")
        failed = f"{requests - statuses.get('200', 0)} of {requests} requests failed{f' ({odd})' if odd else ''}"
        told.append(
            f"{whose}: {failed} in {len(times)} updates in a row under {requests / seconds:.0f} requests/s "
            f"(keep-alive, 4 callers of a 2 s page among them), p99 of quick ones at the end {p99:.0f} ms"
        )
    return row(what, ours, theirs)


Seen = tuple[dict[str, int], float, float]


def _ours_updated(
    platform: Platform, client: httpx.Client, count: int, options: argparse.Namespace
) -> tuple[list[float], Seen]:
    app = deployed(client, "updated", count)
    took, seen = [], []
    host = httpx.URL(app["urls"][0]).host
    with Callers(platform.ingress_port, host, rate=options.rate) as callers:
        wait_for(lambda: callers.take().statuses.get("200"), "the first answers", within_s=60, pace_s=0.5)
        callers.take()
        for _ in range(options.updates):
            begun = time.monotonic()
            made = apps.ask(client.patch("/app/updated", json={"env": {"N": str(time.monotonic_ns())}}), 200)
            ended(client, made["deployment"])
            took.append(time.monotonic() - begun)
            seen.append(callers.take())
        time.sleep(CALM_S)  # what the last one left behind
        seen.append(callers.take())
    apps.delete(client, "updated")
    return took, _summed(seen)


def _summed(seen: list[Answered]) -> Seen:
    statuses = {status: sum(one.statuses[status] for one in seen) for one in seen for status in one.statuses}
    return statuses, sum(one.seconds for one in seen), seen[-1].p99_ms


def _swarm_updated(swarm: SwarmMode, count: int, options: argparse.Namespace) -> tuple[list[float], Seen]:
    swarm.create("updated", count, checked=True)
    swarm.wait_serving("updated", count)
    file = swarm.call("updated", options.rate)
    took = []
    before, since = answered(file), time.monotonic()
    for _ in range(options.updates):
        begun = time.monotonic()
        swarm.update("updated", str(time.monotonic_ns()))
        took.append(time.monotonic() - begun)
    time.sleep(CALM_S)
    found, seconds = answered(file), time.monotonic() - since
    counted = {status: n - before.get(status, 0) for status, n in found.items() if n > before.get(status, 0)}
    p99 = p99_ms(file)
    swarm.remove("callers")
    swarm.remove("updated")
    return took, (counted, seconds, p99)


# -- a container that is killed


def killed(
    client: httpx.Client, swarm: SwarmMode, engine: DockerEngine, repeat: int
) -> tuple[list[float], list[float]]:
    """From SIGKILL to an instance that serves again. Each time another app: who crashes often is made to wait."""
    swarm.create("killed", 1)
    swarm.wait_serving("killed", 1)
    ours, theirs = [], []
    for number in range(repeat):
        container = swarm.container("killed")
        begun = time.monotonic()
        swarm.client.kill(container)
        swarm.wait_serving("killed", 1, but=container)
        theirs.append(time.monotonic() - begun)
        name = f"killed-{number}"
        deployed(client, name, 1)
        item = apps.ask(client.get(f"/app/{name}/instances"), 200)["items"][0]
        about = apps.ask(client.get(f"/app/{name}/instances/{item['id']}/details"), 200)
        begun = time.monotonic()
        engine.docker("kill", about["handle"]["container"])
        _wait_again(client, name, item)
        ours.append(time.monotonic() - begun)
        apps.delete(client, name)
    swarm.remove("killed")
    return ours, theirs


def _wait_again(client: httpx.Client, name: str, before: dict[str, Any]) -> None:
    def again() -> bool:
        items = apps.ask(client.get(f"/app/{name}/instances"), 200)["items"]
        return any(
            one["health"] == "healthy" and (one["id"], one["restarts"]) != (before["id"], before["restarts"])
            for one in items
        )

    wait_for(again, "the instance again", within_s=60, pace_s=LOOK_S)


# -- shared


def deployed(client: httpx.Client, name: str, count: int) -> dict[str, Any]:
    """The app with `count` healthy containers; none: built and ready to be scaled."""
    fields = {"instances": count, "memory_mb": 64, "health_check": CHECK, "strategy": {"watch_s": 0}}
    app = apps.create(client, name, runtime="docker", **fields)
    apps.upload(client, name, apps.pack(apps.folder(APP)), deploy=False)
    ended(client, apps.ask(client.post(f"/app/{name}/release/1/deploy"), 202))
    apps.wait_healthy(client, name, count)
    return app


def _has_docker(client: httpx.Client) -> bool:
    return any("docker" in node["runtimes"] for node in apps.ask(client.get("/nodes"), 200)["items"])


@contextlib.contextmanager
def _engine() -> Iterator[tuple[DockerEngine, SwarmMode]]:
    """An engine that is a swarm of its own, on loopback addresses."""
    folder = Path(tempfile.mkdtemp(prefix="ov-"))
    results = folder / "results"
    had_bridge = _BRIDGE.exists()
    engine = DockerEngine(folder / "e")
    try:
        engine.start()
        address = free_address()
        engine.docker("swarm", "init", "--advertise-addr", address, "--listen-addr", f"{address}:2377",
                      "--data-path-port", "34789")  # fmt: skip
        results.mkdir(mode=0o777)
        swarm = SwarmMode(engine.url, APP, results)
        try:
            yield engine, swarm
        finally:
            swarm.close()
            engine.docker("swarm", "leave", "--force")
    finally:
        engine.stop()
        if not had_bridge and _BRIDGE.exists():  # Swarm's own, which it leaves behind
            subprocess.run(["ip", "link", "del", _BRIDGE.name], check=False, timeout=20)
        with contextlib.suppress(OSError):
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            folder.rmdir()


if __name__ == "__main__":
    main()

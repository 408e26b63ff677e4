"""A node that is lost with its engine and all its containers, until they are replaced; for `bench.vs_swarm`.

Three hosts in network namespaces, an engine on each: first a swarm of the three loses a worker, then a platform of
three members on the same engines loses a follower. Loss is SIGKILL to everything of that host at once. Each side tells
a loss by its own defaults: the platform by a node's lease of 5 s, Swarm by heartbeats of 5 s of which three are missed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from bench import apps
from bench.harness import wait_for
from bench.swarm_mode import IMAGE, LOOK_S, SwarmMode
from omni.testing.docker_engine import DockerEngine
from omni.testing.hosts import Host
from omni.testing.several_hosts import SeveralHosts, wait_until_ready
from tests.cluster.nodes import processes_on

HOSTS = 3
INSTANCES = 6  # two a host
_NAME = "lost"
_GROUPS = Path("/sys/fs/cgroup")
Deploy = Callable[[httpx.Client, str, int], dict[str, Any]]


def measured(app: Path, deploy: Deploy) -> tuple[float, float]:
    """Seconds until all instances serve on the other two: the platform's, and Swarm's."""
    with tempfile.TemporaryDirectory(prefix="ol-") as folder:
        place = Path(folder)
        place.chmod(0o711)
        with SeveralHosts(place / "p", HOSTS, name=f"ovl{os.getpid() % 10_000}") as cluster:
            with _engines(place, cluster) as engines:
                theirs = _swarms(engines, cluster.net.hosts, app, place)
                ours = _platforms(engines, cluster, deploy)
            return ours, theirs


@contextlib.contextmanager
def _engines(place: Path, cluster: SeveralHosts) -> Iterator[list[DockerEngine]]:
    """The platform is ended before its engines, and those before their hosts."""
    engines = [DockerEngine(place / f"e{number}", host) for number, host in enumerate(cluster.net.hosts)]
    try:
        for engine in engines:
            engine.start()
        yield engines
    finally:
        try:
            cluster.stop()
        finally:
            for engine in engines:
                engine.stop()


def _lose(host: Host, engine: DockerEngine) -> None:
    inside = [int(pid) for file in _groups_of(engine) for pid in file.read_text().split()]
    for pid in (*processes_on([host]), *inside):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _groups_of(engine: DockerEngine) -> Iterator[Path]:
    for top in (_GROUPS / engine.cgroup, *_GROUPS.glob(f"*/{engine.cgroup}")):
        yield from top.rglob("cgroup.procs")


# -- Swarm


def _swarms(engines: list[DockerEngine], hosts: list[Host], app: Path, place: Path) -> float:
    manager, address = engines[0], hosts[0].address
    manager.docker("swarm", "init", "--advertise-addr", address, "--listen-addr", f"{address}:2377")
    token = manager.docker("swarm", "join-token", "--quiet", "worker").strip()
    for engine, host in zip(engines[1:], hosts[1:], strict=True):
        engine.docker("swarm", "join", "--token", token, "--advertise-addr", host.address, f"{address}:2377")
    nodes = [engine.docker("info", "--format", "{{.Swarm.NodeID}}").strip() for engine in engines]
    swarm = SwarmMode(manager.url, app, place, dict(zip(nodes, (host.address for host in hosts), strict=True)))
    try:
        _same_image(engines, place)
        swarm.create(_NAME, INSTANCES)
        swarm.wait_serving(_NAME, INSTANCES)
        begun = time.monotonic()
        _lose(hosts[-1], engines[-1])
        swarm.wait_serving(_NAME, INSTANCES, but_node=nodes[-1])
        return time.monotonic() - begun
    finally:
        swarm.close()
        engines[-1].kill()  # what it left of itself is cleared for its next start, which is one outside the swarm
        shutil.rmtree(engines[-1].folder / "data" / "swarm", ignore_errors=True)
        engines[-1].start()
        for engine in reversed(engines[:-1]):
            engine.docker("swarm", "leave", "--force")


def _same_image(engines: list[DockerEngine], place: Path) -> None:
    archive = place / "image.tar"
    engines[0].docker("save", "--output", str(archive), IMAGE)
    for engine in engines[1:]:
        engine.docker("load", "--input", str(archive))


# -- the platform


def _platforms(engines: list[DockerEngine], cluster: SeveralHosts, deploy: Deploy) -> float:
    for number, engine in enumerate(engines):
        cluster.environment = {"OMNI_AGENT_DOCKER": engine.url}
        cluster.launch(number)
    for started in cluster.started:
        wait_until_ready(started)
    headers = {"Authorization": f"Bearer {cluster.token}"}
    leader = _leader(cluster, headers)
    number = next(at for at in reversed(range(HOSTS)) if at != leader)
    with httpx.Client(base_url=cluster.members[leader], headers=headers, timeout=60, trust_env=False) as client:
        wait_for(lambda: _docker_nodes(client) == HOSTS, "every node's docker runtime")
        deploy(client, _NAME, INSTANCES)
        lost = cluster.net.hosts[number]
        begun = time.monotonic()
        _lose(lost, engines[number])
        wait_for(lambda: _elsewhere(client, lost) >= INSTANCES, "all on the others", within_s=180, pace_s=LOOK_S)
        took = time.monotonic() - begun
    engines[number].kill()
    return took


def _leader(cluster: SeveralHosts, headers: dict[str, str]) -> int:
    def look() -> list[int]:
        said = httpx.get(f"{cluster.members[0]}/cluster/status", headers=headers, timeout=5, trust_env=False).json()
        leader = said.get("leader") or "nobody"
        return [number for number, url in enumerate(cluster.members) if url.endswith(leader)]

    found: list[int] = wait_for(look, "a leader")
    return found[0]


def _docker_nodes(client: httpx.Client) -> int:
    return sum("docker" in node["runtimes"] for node in apps.ask(client.get("/nodes"), 200)["items"])


def _elsewhere(client: httpx.Client, lost: Host) -> int:
    items = apps.ask(client.get(f"/app/{_NAME}/instances", params={"limit": 100}), 200)["items"]
    return sum(
        one["health"] == "healthy" and one["status"] == "running" and lost.address not in one["node"] for one in items
    )

"""A node is lost: its instances are replaced elsewhere, and when it is back its old ones end before it gets new work.

Killed whole (with its instances), frozen (its instances run on), and most of the nodes silent at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.request_loop import RequestLoop
from tests.running_platform import EXAMPLES, PROJECT, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

LEASE_S = 5.0


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Four nodes that nobody starts again: what is lost stays lost until a test brings it back."""
    running = Platform.prepared(tmp_path_factory.mktemp("node-lost"), members=4)
    running.start("--no-restart")
    started: list[subprocess.Popen[bytes]] = []
    running.by_hand = started  # type: ignore[attr-defined]
    yield running
    for process in started:
        process.terminate()
    for process in started:
        process.wait(20)
    assert running.stop() == 0


def make_app(platform: Platform, name: str) -> dict[str, Any]:
    """An app with one instance on each node, served."""
    api = platform.api(platform.leader())
    wait_for(lambda: [item["status"] for item in api.ok("GET", "/nodes")["items"]] == ["ready"] * 4, "four ready nodes")
    app = api.create(name, instances=4)
    assert api.built(name, "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy(name, 4, "1")
    platform.answers(app)
    return app


def delete(platform: Platform, name: str) -> None:
    api = platform.api(platform.leader())
    api.ok("DELETE", f"/app/{name}")
    wait_for(lambda: api("GET", f"/app/{name}/info").status_code == 404, "the end of the app", 60)


def node(platform: Platform, member: int) -> str:
    entry = platform.config["instances"][member]
    return f"{entry['address']}-{entry['port']}"


def running_on(platform: Platform, app: str, member: int) -> list[int]:
    """Instances whose records of that node's agent say that they run."""
    found = []
    for path in (platform.state / "instances").glob("[0-9]*/state.json"):
        with contextlib.suppress(OSError, ValueError):
            record = json.loads(path.read_text())
            wanted = (record["node"], record["assignment"]["app"]) == (node(platform, member), app)
            if wanted and record["observed"]["status"] == "running":
                found.append(int(path.parent.name))
    return sorted(found)


def alive(platform: Platform, instance: int) -> bool:
    """Whether its process is there, whatever anybody says."""
    try:
        handle = json.loads((platform.state / "instances" / str(instance) / "process.json").read_text())
        return bool(psutil.Process(int(handle["pid"])).status() != psutil.STATUS_ZOMBIE)
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False


def events(platform: Platform, since: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.api(survivor(platform)).ok("GET", f"/events?since={since}&limit=500")[
        "items"
    ]
    return sorted(found, key=lambda event: tuple(map(int, event["id"].split("."))))


def survivor(platform: Platform) -> int:
    return platform.leader()


def healthy_elsewhere(platform: Platform, app: str, lost: int) -> bool:
    items = platform.api(survivor(platform)).ok("GET", f"/app/{app}/instances?status=running&limit=50")["items"]
    good = [item for item in items if item["health"] == "healthy" and item["node"] != node(platform, lost)]
    return len(good) == 4


def bring_back(platform: Platform, member: int) -> None:
    """As an operator does it: the one node, by its own command."""
    port = platform.config["instances"][member]["port"]
    command = [sys.executable, "-m", "omni.launch.node", "--port", str(port), "--plan",
               str(platform.state / "run" / "plan.json")]  # fmt: skip
    log = (platform.state / f"node-{port}" / "log").open("ab")
    environment = {**os.environ, "OMNI_STATE": str(platform.state), "OMNI_PROCESS": f"node-{port}"}
    with log:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    platform.by_hand.append(process)  # type: ignore[attr-defined]


def index(platform: Platform) -> int:
    return int(platform.api(survivor(platform)).ok("GET", "/cluster/status")["write_index"])


def wait_until_back(platform: Platform, member: int, since: int) -> None:
    """Ready again, and the old instances gone before anything new was placed there."""
    name = node(platform, member)

    def cleared() -> bool:
        kinds = [(event["kind"], event["change"]) for event in events(platform, since)]
        return any(kind == "instances.removed_from_node" and change["name"] == name for kind, change in kinds)

    wait_for(cleared, f"the end of the old instances on {name}", 40)
    told = events(platform, since)
    removed = next(i for i, e in enumerate(told)
                   if e["kind"] == "instances.removed_from_node" and e["change"]["name"] == name)  # fmt: skip
    placed = [i for i, e in enumerate(told) if e["kind"] == "instance.placed" and e["change"]["node"] == name]
    assert all(position > removed for position in placed), "new work before the old instances had ended"


@pytest.mark.parametrize("which", [pytest.param("follower", marks=pytest.mark.long), "leader"])
def test_a_node_killed_with_its_instances_is_replaced_and_comes_back(platform: Platform, which: str) -> None:
    name = f"killed-{which}"
    app = make_app(platform, name)
    leader = platform.leader()
    lost = leader if which == "leader" else next(m for m in range(4) if m != leader)
    since = index(platform)
    victims = running_on(platform, name, lost)
    assert victims
    others = [m for m in range(4) if m != lost]
    pids = [platform.app_process(instance).pid for instance in victims]
    os.killpg(platform.supervisor(lost), signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    wait_for(lambda: healthy_elsewhere(platform, name, lost), "all healthy on the other nodes", 60, 0.2)
    took = time.monotonic() - begun
    print(f"{which} killed: all healthy elsewhere after {took:.1f} s")
    assert platform.open(app).status_code == 200
    kinds = [event["kind"] for event in events(platform, since) if event["app_id"] in (None, app["id"])]
    assert kinds.count("node.lost") == 1
    assert kinds.count("instance.lost") == len(victims)
    assert all(running_on(platform, name, member) for member in others)

    bring_back(platform, lost)
    wait_until_back(platform, lost, since)
    assert not any(alive(platform, instance) for instance in victims)
    wait_for(lambda: "node.returned" in [e["kind"] for e in events(platform, since)], "the node's return", 20)
    api = platform.api(platform.leader())
    api.ok("POST", f"/app/{name}/scale", {"instances": 8})
    api.healthy(name, 8)
    assert running_on(platform, name, lost), "it takes new work again"
    delete(platform, name)


@pytest.mark.long
def test_a_frozen_nodes_instances_run_on_until_it_wakes_and_then_end(platform: Platform) -> None:
    app = make_app(platform, "frozen")
    leader = platform.leader()
    lost = next(m for m in range(4) if m != leader)
    since = index(platform)
    victims = running_on(platform, "frozen", lost)
    assert victims, "each node runs one"
    group = platform.supervisor(lost)
    with RequestLoop(platform, app) as loop:
        os.killpg(group, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            wait_for(lambda: healthy_elsewhere(platform, "frozen", lost), "all healthy on the other nodes", 60, 0.2)
            print(f"frozen: all healthy elsewhere after {time.monotonic() - begun:.1f} s")
            assert all(alive(platform, instance) for instance in victims), "no self-fencing: they run on (DECISIONS 14)"
        finally:
            os.killpg(group, signal.SIGCONT)
        wait_until_back(platform, lost, since)
        wait_for(lambda: not any(alive(platform, instance) for instance in victims), "their end", 20)
        platform.api(platform.leader()).healthy("frozen", 4)
    assert loop.failures == []
    delete(platform, "frozen")


def test_a_drained_node_empties_under_load_and_takes_new_work_again(platform: Platform) -> None:
    app = make_app(platform, "drained")
    api = platform.api(platform.leader())
    away = next(member for member in range(4) if member != platform.leader())
    listed = api.ok("GET", "/nodes")["items"]
    (found,) = [entry for entry in listed if entry["name"] == node(platform, away)]
    with RequestLoop(platform, app) as loop:
        api.ok("POST", f"/nodes/{found['id']}/drain")

        def empty() -> bool:
            return bool(api.ok("GET", f"/nodes/{found['id']}")["drained"])

        wait_for(empty, "the node to be empty", 90, 0.2)
        api.healthy("drained", 4)
        assert not running_on(platform, "drained", away)
    assert loop.answers
    assert loop.failures == []
    api.ok("POST", f"/nodes/{found['id']}/activate")
    api.ok("POST", "/app/drained/scale", {"instances": 8})
    api.healthy("drained", 8)
    assert running_on(platform, "drained", away), "it takes new work again"
    delete(platform, "drained")


@pytest.mark.long
def test_most_nodes_silent_at_once_is_not_believed(platform: Platform) -> None:
    app = make_app(platform, "held")
    since = index(platform)
    api = platform.api(platform.leader())
    silent = [0, 1, 2]
    agents = [p for m in silent for p in platform.processes(f"node-{platform.config['instances'][m]['port']}/agent")]
    assert len(agents) >= 3
    before = {member: running_on(platform, "held", member) for member in range(4)}
    with RequestLoop(platform, app) as loop:
        for agent in agents:
            agent.suspend()
        try:
            wait_for(lambda: "nodes.loss_held" in [e["kind"] for e in events(platform, since)], "the alert", 40)
            time.sleep(LEASE_S)  # nothing must follow, and that can only be seen by waiting
            assert "node.lost" not in [e["kind"] for e in events(platform, since)]
        finally:
            for agent in agents:
                agent.resume()
        api.healthy("held", 4, timeout_s=30)
    assert loop.failures == []
    assert {member: running_on(platform, "held", member) for member in range(4)} == before
    held = next(e for e in events(platform, since) if e["kind"] == "nodes.loss_held")
    assert sorted(held["change"]["nodes"]) == sorted(node(platform, m) for m in silent)
    delete(platform, "held")


@pytest.mark.long
def test_a_singleton_never_runs_twice(platform: Platform) -> None:
    """Its node is frozen, agent and all: a keeper of its own ends it, and only then is it started elsewhere."""
    api = platform.api(platform.leader())
    app = api.create("only", singleton=True, stop_timeout_s=2.0)
    assert api.built("only", "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("only", 1, "1")
    platform.answers(app)
    (victim,) = api.ok("GET", "/app/only/instances?status=running")["items"]
    lost = next(member for member in range(4) if node(platform, member) == victim["node"])
    group = platform.supervisor(lost)
    frozen_at = time.monotonic()
    os.killpg(group, signal.SIGSTOP)
    try:
        wait_for(lambda: not alive(platform, victim["id"]), "its end", 30, 0.05)
        ended_after = time.monotonic() - frozen_at

        def successor() -> dict[str, Any] | None:
            items = platform.api(platform.leader()).ok("GET", "/app/only/instances?limit=10")["items"]
            return next((item for item in items if item["id"] != victim["id"]), None)

        found = wait_for(successor, "its successor", 60, 0.1)
        placed_after = time.monotonic() - frozen_at
        assert found["node"] != victim["node"]
        platform.answers(app)
    finally:
        os.killpg(group, signal.SIGCONT)
    print(f"singleton: ended after {ended_after:.1f} s, placed anew after {placed_after:.1f} s")
    assert LEASE_S - 1.5 < ended_after < placed_after
    platform.api(platform.leader()).healthy("only", 1)
    assert not alive(platform, victim["id"])
    delete(platform, "only")

"""A node that is lost with all that runs on it, until its instances are healthy elsewhere; for `bench.rollout`.

A platform of three nodes of its own. A follower's supervisor and its instances get SIGKILL; the figure is the time
until the app has all its healthy instances on the other two. The node is brought back before the next round.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import PROJECT
from tests.running_platform import Platform, archive, wait_for

MEMBERS = 3
INSTANCES = 6  # two a node
NODE_LEASE_S = 5.0  # `timings.node_lease_s`: before that, silence is not a loss
_APP = "lost"


def measured(app: Path, repeat: int, check: dict[str, Any]) -> tuple[list[float], list[int]]:
    """Seconds of each round, and how many instances had to be replaced in it."""
    with tempfile.TemporaryDirectory(prefix="omni-bench-") as folder:
        platform = Platform.prepared(Path(folder), members=MEMBERS)
        platform.start("--no-restart")
        returned: list[subprocess.Popen[bytes]] = []
        try:
            api = platform.api(platform.leader())
            api.create(_APP, instances=INSTANCES, memory_mb=64, health_check=check, strategy={"watch_s": 0})
            api.built(_APP, "1", archive(app))
            api.healthy(_APP, INSTANCES, "1")
            rounds = []
            for number in range(repeat):
                rounds.append(_one(platform, number))
                returned.append(_bring_back(platform, rounds[-1][2]))
            return [took for took, _, _ in rounds], [count for _, count, _ in rounds]
        finally:
            for process in returned:
                process.terminate()
            for process in returned:
                process.wait(20)
            platform.stop()


def _one(platform: Platform, number: int) -> tuple[float, int, int]:
    """(seconds, instances lost, the member)."""
    followers = platform.followers()
    lost = followers[number % len(followers)]
    name = _name(platform, lost)
    victims = [item for item in _running(platform) if item["node"] == name]
    pids = [platform.app_process(item["id"]).pid for item in victims]
    begun = time.monotonic()
    os.killpg(platform.supervisor(lost), signal.SIGKILL)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        good = [item for item in _running(platform) if item["health"] == "healthy" and item["node"] != name]
        return len(good) == INSTANCES

    wait_for(replaced, "all instances on the other nodes", 120, 0.05)
    return time.monotonic() - begun, len(victims), lost


def _name(platform: Platform, member: int) -> str:
    entry = platform.config["instances"][member]
    return f"{entry['address']}-{entry['port']}"


def _running(platform: Platform) -> list[dict[str, Any]]:
    path = f"/app/{_APP}/instances?status=running&limit=50"
    found: list[dict[str, Any]] = platform.api(platform.leader()).ok("GET", path)["items"]
    return found


def _bring_back(platform: Platform, member: int) -> subprocess.Popen[bytes]:
    """As an operator does it: the one node, by its own command; the app's instances are spread anew."""
    port = platform.config["instances"][member]["port"]
    command = [sys.executable, "-m", "omni.launch.node", "--port", str(port)]
    command += ["--plan", str(platform.state / "run" / "plan.json")]
    environment = {**os.environ, "OMNI_STATE": str(platform.state), "OMNI_PROCESS": f"node-{port}"}
    with (platform.state / f"node-{port}" / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    name = _name(platform, member)

    def ready() -> bool:
        nodes = platform.api(platform.leader()).ok("GET", "/nodes")["items"]
        return any(node["name"] == name and node["status"] == "ready" for node in nodes)

    wait_for(ready, f"{name} to be back", 90)
    api = platform.api(platform.leader())
    api.ok("POST", f"/app/{_APP}/restart")
    wait_for(lambda: any(item["node"] == name for item in _running(platform)), f"work on {name}", 90)
    api.healthy(_APP, INSTANCES)
    return process

"""The leader's node is killed while a release command runs: it runs once, and then its release comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]
SLOW = 'release: echo "migrating $OMNI_RELEASE"; sleep 12; echo done\nweb: exec python app.py web\n'


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One of its own: a node is killed."""
    running = Platform.prepared(tmp_path_factory.mktemp("release"), members=3)
    running.start()
    yield running
    assert running.stop() == 0


def read(platform: Platform, path: str) -> Any:
    """From whichever member answers; None while none does."""
    for member in range(len(platform.members)):
        try:
            answer = platform.api(member)("GET", path, timeout=5)
        except httpx.HTTPError:
            continue
        if answer.status_code == 200:
            return answer.json()
    return None


def test_a_release_command_runs_once_though_the_leader_dies(platform: Platform) -> None:
    api = platform.api(platform.leader())
    app = api.create("mill", strategy={"min_ready_s": 0.5})
    folder = EXAMPLES / "web-and-worker"
    api.built("mill", "1", archive(folder, Procfile="web: exec python app.py web\n"))
    api.healthy("mill", 1, "1")
    api.built("mill", "2", archive(folder, Procfile=SLOW))

    def prepares() -> Any:
        tasks = (read(platform, "/app/mill/tasks?kind=release") or {"items": []})["items"]
        return [task for task in tasks if task["status"] == "running"]

    (task,) = wait_for(prepares, "the release command's start", 60)
    leader = platform.leader()
    where = int(task["node"].rpartition("-")[2])
    if platform.config["instances"][leader]["port"] == where:  # kill the leader, not the node that runs the command
        api.ok("POST", "/cluster/transfer")
        wait_for(lambda: platform.leader() != leader, "another leader", 30)
        leader = platform.leader()
    os.killpg(platform.supervisor(leader), signal.SIGKILL)
    assert platform.open(app).json()["version"] == "1"

    def over() -> Any:
        info = read(platform, "/app/mill/info")
        return info and info["version"]["current"] == "2" and info["status"] == "running"

    wait_for(over, "version 2", 120, every_s=0.5)
    (again,) = read(platform, "/app/mill/tasks?kind=release")["items"]
    assert (again["id"], again["status"], again["exit_code"]) == (task["id"], "succeeded", 0)
    lines = read(platform, again["links"]["logs"])["items"]
    assert [line["line"] for line in lines] == ["migrating 2", "done"]
    platform.answers(app)
    assert platform.open(app).json()["version"] == "2"

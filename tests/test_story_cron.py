"""A cron entry across a leader that is killed when it is due: every due time once, none twice."""

from __future__ import annotations

import datetime as dt
import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]


@pytest.fixture
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One of its own: a node is killed."""
    running = Platform.prepared(tmp_path_factory.mktemp("cron"), members=3)
    running.start()
    yield running
    assert running.stop() == 0


def runs(platform: Platform) -> list[dict[str, Any]]:
    for member in range(len(platform.members)):
        try:
            answer = platform.api(member)("GET", "/app/clock/cron/tick/runs", timeout=5)
        except httpx.HTTPError:
            continue
        if answer.status_code == 200:
            return list(answer.json()["items"])
    return []


def test_a_cron_entry_is_started_once_for_each_due_time_though_the_leader_dies(platform: Platform) -> None:
    api = platform.api(platform.leader())
    api.create("clock", strategy={"min_ready_s": 0.5})
    assert api.built("clock", "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("clock", 1)
    entry = api.ok("POST", "/app/clock/cron", {"name": "tick", "schedule": "* * * * *", "command": "echo ticked"})
    due = dt.datetime.fromisoformat(entry["next_due_at"].replace("Z", "+00:00"))

    wait_for(lambda: dt.datetime.now(dt.UTC) >= due - dt.timedelta(seconds=0.5), "the moment before it is due", 70)
    os.killpg(platform.supervisor(platform.leader()), signal.SIGKILL)
    wait_for(lambda: len(runs(platform)) >= 2, "two due times", 150, every_s=0.5)
    wait_for(lambda: any(run["task_status"] == "succeeded" for run in runs(platform)), "the end of one", 60)
    found = runs(platform)
    due_times = [run["due_at"] for run in found]
    assert entry["next_due_at"] in due_times
    assert len(set(due_times)) == len(due_times)
    first = next(run for run in found if run["due_at"] == entry["next_due_at"])
    assert first["status"] == "started"
    assert len({run["task_id"] for run in found}) == len(found)
    member = platform.leader()
    tasks = platform.api(member).ok("GET", "/app/clock/tasks?kind=cron")["items"]
    assert len(tasks) == len([run for run in runs(platform) if run["task_id"] is not None])
    for task in (task for task in tasks if task["status"] == "succeeded"):
        said = [line["line"] for line in platform.api(member).ok("GET", task["links"]["logs"])["items"]]
        assert said == ["ticked"], task

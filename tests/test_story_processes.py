"""An app of web, worker and release command, and commands that run once, with real processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.running_platform import EXAMPLES, Api, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

APP = EXAMPLES / "web-and-worker"
OVER = ("succeeded", "failed", "cancelled", "timed_out", "lost")


def ended(api: Api, task: dict[str, Any], timeout_s: float = 40) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = api.ok("GET", task["links"]["self"])
        return found if found["status"] in OVER else None

    return dict(wait_for(look, f"the end of task {task['id']}", timeout_s))


def lines(api: Api, path: str) -> list[str]:
    return [line["line"] for line in api.ok("GET", path)["items"]]


def test_web_worker_release_command_and_tasks(platform: Platform) -> None:
    api = platform.api(platform.leader())
    app = api.create("mill", processes={"worker": {"instances": 1}}, strategy={"min_ready_s": 0.5})
    try:
        build = api.built("mill", "1", archive(APP))
        assert build["status"] == "succeeded", build
        api.healthy("mill", 2, "1")
        platform.answers(app)
        (prepared,) = api.ok("GET", "/app/mill/tasks?kind=release")["items"]
        assert (prepared["status"], prepared["exit_code"]) == ("succeeded", 0)
        wait_for(lambda: lines(api, prepared["links"]["logs"]) == ["migrating to 1"], "its log")
        api.ok("POST", "/app/mill/scale", {"processes": {"worker": 2}})
        info = api.healthy("mill", 3)
        assert info["processes_summary"]["worker"]["healthy"] == 2

        failing = api("PATCH", "/app/mill/config", {"env": {"RELEASE_FAILS": "1"}}).json()["deployment"]
        failed = api.ended(failing)
        assert (failed["status"], failed["error"]["code"]) == ("reverted", "release_command_failed")
        assert "the migration does not fit" in failed["evidence"]["log"]
        assert platform.open(app).json() == {"process": "web", "version": "1"}
        assert api.healthy("mill", 3, "1")["env"] == {}

        said = ended(api, api.ok("POST", "/app/mill/run", {"command": "echo $WHO; exit 5", "env": {"WHO": "me"}}))
        assert (said["status"], said["exit_code"]) == ("failed", 5)
        wait_for(lambda: lines(api, said["links"]["logs"]) == ["me"], "the task's log")
        long = api.ok("POST", "/app/mill/run", {"command": "sleep 300"})
        wait_for(lambda: api.ok("GET", long["links"]["self"])["status"] == "running", "the task's start")
        api.ok("POST", long["links"]["cancel"])
        assert ended(api, long)["status"] == "cancelled"
    finally:
        api("DELETE", "/app/mill")

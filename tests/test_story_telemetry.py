"""What the platform says about itself: one request id through the logs of all processes, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]
ASKED = "upload-of-the-story"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One of its own, whose processes write JSON."""
    running = Platform.prepared(tmp_path_factory.mktemp("told"), members=3, log_format="json")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def app(platform: Platform) -> dict[str, Any]:
    """Uploaded to a follower under a request id of the caller's own; built, deployed, running."""
    api = platform.api(platform.followers()[0])
    made = api.create("told", instances=2)
    data = archive(EXAMPLES / "hello")
    answer = api.upload("told", "1", data, **{"Request-Id": ASKED})
    assert answer.status_code == 202, answer.text
    assert answer.headers["Request-Id"] == ASKED
    api.healthy("told", 2, "1")
    return made


def lines(platform: Platform) -> list[dict[str, Any]]:
    """All log lines of our own processes; the file that each stands in as `file`."""
    found = []
    for path in [*platform.state.glob("node-*/log"), platform.state / "worker" / "log", platform.state / "ingress/log"]:
        for line in path.read_text().splitlines():
            try:
                found.append({**json.loads(line), "file": path.parent.name})
            except ValueError:
                raise AssertionError(f"no JSON in {path}: {line}") from None
    return found


def test_one_request_id_runs_through_all_processes(platform: Platform, app: dict[str, Any]) -> None:
    def processes() -> set[str]:
        return {line["process"].rpartition("/")[2] for line in lines(platform) if line["request_id"] == ASKED}

    wait_for(lambda: {"web", "worker", "daemon", "agent"} <= processes(), "the id in the logs of four processes", 20)
    fronts = {
        line["file"] for line in lines(platform) if line["request_id"] == ASKED and line["logger"] == "omni.front"
    }
    assert len(fronts) == 2, "the member that was asked, and the leader"


def test_events_name_the_request_that_they_follow_from(platform: Platform, app: dict[str, Any]) -> None:
    events = platform.api().ok("GET", "/events?app=told&limit=500")["items"]
    under = {event["kind"] for event in events if event["request_id"] == ASKED}
    assert {"build.queued", "build.succeeded", "deployment.created", "instance.placed"} <= under, sorted(under)


def test_every_line_says_when_who_and_how_bad(platform: Platform, app: dict[str, Any]) -> None:
    keys = {"at", "level", "logger", "process", "request_id", "message"}
    for line in lines(platform):
        assert keys <= line.keys(), line
        assert line["process"], line

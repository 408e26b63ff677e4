"""The leader's node is killed in every phase of a rollout: it ends as it should, and no caller of the app notices."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.request_loop import RequestLoop
from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

APP = EXAMPLES / "misbehaving"
OVER = ("succeeded", "reverted")
SHORT = {"pending", "starting", "reverting"}  # phases that may be over between two looks
CASES: dict[str, tuple[dict[str, Any], str, tuple[str, ...], str]] = {
    # strategy, mode of version 2, phases in which the leader dies, version that serves in the end
    "rolling": ({"type": "rolling", "min_ready_s": 3}, "well", ("pending", "rolling"), "2"),
    "canary": (
        {"type": "canary", "canary_percent": 40, "bake_s": 8, "min_ready_s": 2},
        "well", ("starting", "baking", "rolling"), "2",
    ),
    "blue_green": (
        {"type": "blue_green", "bake_s": 8, "keep_warm_s": 15, "min_ready_s": 2},
        "well", ("starting", "baking", "warm"), "2",
    ),
    "reverting": ({"type": "rolling", "progress_deadline_s": 60}, "exits", ("rolling", "reverting"), "1"),
}  # fmt: skip


def _param(case: str) -> Any:
    """In every run `instances/test_leaders_die.py` walks every phase; with real processes one case."""
    return pytest.param(case, marks=() if case == "rolling" else pytest.mark.long)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One of its own: its nodes are killed."""
    running = Platform.prepared(tmp_path_factory.mktemp("killed"), members=3)
    running.start()
    yield running
    assert running.stop() == 0


def ask(platform: Platform, method: str, path: str) -> dict[str, Any]:
    """Of whichever member answers, for as long as a new leader may take; with a key, so that it counts once."""

    def once() -> dict[str, Any] | None:
        for member in range(len(platform.members)):
            try:
                client = platform.api(member).client
                answer = client.request(method, path, headers={"Idempotency-Key": key}, timeout=5)
            except httpx.HTTPError:
                continue
            if answer.status_code < 300:
                return dict(answer.json())
        return None

    key = f"{method} {path} {time.monotonic_ns()}"
    return dict(wait_for(once, f"an answer to {method} {path}", 60, 0.1) or {})


def kill_leader(platform: Platform) -> None:
    """The whole node of whoever leads now; start.sh starts it again."""
    os.killpg(platform.supervisor(platform.leader()), signal.SIGKILL)


@pytest.mark.parametrize("case", [_param(case) for case in CASES])
def test_a_rollout_survives_its_leader_in_every_phase(platform: Platform, case: str) -> None:
    strategy, mode, phases, version = CASES[case]
    name = f"led-{case.replace('_', '-')}"
    api = platform.api(platform.leader())
    app = api.create(name, instances=2, memory_mb=64, strategy=strategy,
                     health_check={"type": "http", "path": "/healthz"})  # fmt: skip
    api.built(name, "1", archive(APP))
    assert api.built(name, "2", archive(APP, mode__txt=mode, v__txt="2"), "?deploy=false")["status"] == "succeeded"
    api.healthy(name, 2, "1")
    platform.answers(app)
    killed: list[str] = []
    with RequestLoop(platform, app) as loop:
        path = ask(platform, "POST", f"/app/{name}/release/2/deploy")["links"]["self"]
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            found = ask(platform, "GET", path)
            if found["phase"] in phases and found["phase"] not in killed:
                killed.append(found["phase"])
                kill_leader(platform)
            elif found["status"] in OVER and found["phase"] is None:
                break
            time.sleep(0.02)
        assert found["status"] == ("succeeded" if version == "2" else "reverted"), found
        wait_for(lambda: _serves(platform, name, version), f"two healthy instances of {version}", 90)
    assert killed, "the leader was killed in no phase"
    assert set(killed) >= set(phases) - SHORT, f"killed only in {killed}"
    assert loop.failures == []
    assert ask(platform, "GET", f"/app/{name}/deployments")["items"][0]["id"] == found["id"]


def _serves(platform: Platform, name: str, version: str) -> bool:
    items = ask(platform, "GET", f"/app/{name}/instances")["items"]
    healthy = [item["version"] for item in items if item["health"] == "healthy" and item["desired"] == "run"]
    return healthy == [version, version]

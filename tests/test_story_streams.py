"""Followers of a log and of the events see everything once, in order, while the leader's node is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.running_platform import Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]

COUNTING = """
import os, socket, threading, time
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def accept():
    while True:
        listener.accept()[0].close()
threading.Thread(target=accept, daemon=True).start()
number = 0
while True:
    number += 1
    print(f"tick {os.environ.get('OMNI_INSTANCE_ID')} {number}", flush=True)
    time.sleep(0.05)
"""


class Follower:
    """A browser's EventSource: reconnects to the next member with the last id that it saw."""

    def __init__(self, platform: Platform, path: str, first: int = 0) -> None:
        self.items: list[dict[str, Any]] = []
        self.connections = 0
        self._platform, self._path, self._member, self._last = platform, path, first, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                self._read(self._platform.members[self._member % len(self._platform.members)])
            self._member += 1
            self._stop.wait(0.2)

    def _read(self, base: str) -> None:
        headers = {"Authorization": f"Bearer {self._platform.token}", "Accept": "text/event-stream"}
        if self._last:
            headers["Last-Event-ID"] = self._last
        with (
            httpx.Client(base_url=base, timeout=httpx.Timeout(5, read=20), trust_env=False) as client,
            client.stream("GET", self._path, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                return
            self.connections += 1
            position = ""
            for line in answer.iter_lines():
                if self._stop.is_set():
                    return
                if line.startswith("id: "):
                    position = line[4:]
                elif line.startswith("data: "):
                    item = json.loads(line[6:])
                    if "status" in item and "code" in item:
                        return
                    self.items.append(item)
                elif not line and position:
                    self._last = position


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One of its own: its leader is killed."""
    running = Platform.prepared(tmp_path_factory.mktemp("followed"), members=3)
    running.start()
    yield running
    assert running.stop() == 0


def ticks(follower: Follower) -> dict[str, list[int]]:
    """What each instance wrote, as it was followed."""
    found: dict[str, list[int]] = {}
    for item in follower.items:
        word, _, rest = item["line"].partition(" ")
        if word == "tick":
            instance, number = rest.split()
            found.setdefault(instance, []).append(int(number))
    return found


def test_a_killed_leader_leaves_no_gap_and_repeats_nothing(platform: Platform, tmp_path: Any) -> None:
    api = platform.api(platform.leader())
    api.create("ticking", instances=2, memory_mb=64)
    api.built("ticking", "1", archive(tmp_path, Procfile="web: exec python -u app.py\n", app__py=COUNTING))
    api.healthy("ticking", 2, "1")
    leader = platform.leader()
    start = api("GET", "/cluster/status").json()["write_index"]
    with (
        Follower(platform, "/app/ticking/logs?tail=1", leader) as log,
        Follower(platform, f"/events?since={start}", leader) as events,
    ):
        wait_for(lambda: len(log.items) > 40, "forty lines followed", 30)
        os.killpg(platform.supervisor(leader), signal.SIGKILL)
        follower = platform.followers()[0] if platform.leader() == leader else platform.leader()
        wait_for(lambda: _scale(platform, follower), "a write under the new leader", 60)
        wait_for(lambda: log.connections >= 2 and events.connections >= 2, "both to come back", 60)
        seen = len(log.items)
        wait_for(lambda: len(log.items) > seen + 40, "forty lines more", 60)
        kinds = ("app.scaled", "app.deploy_requested", "app.updated")
        wait_for(lambda: any(e["kind"] in kinds for e in events.items), "the write's event", 30)
        time.sleep(1)
    found = ticks(log)
    assert len(found) >= 2
    for instance, numbers in found.items():
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), f"instance {instance}: gap or repeat"
    ids = [tuple(int(part) for part in event["id"].split(".")) for event in events.items]
    assert ids == sorted(set(ids)), "an event came twice, or out of order"
    listed = _events(platform, start, ids[-1][0])
    assert ids == listed, "the stream is the list"
    gone = platform.api(platform.leader())("GET", "/events?since=1&limit=1")
    assert gone.status_code in (200, 410)


def _scale(platform: Platform, member: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return platform.api(member).client.post("/app/ticking/scale", json={"instances": 3}, timeout=5).is_success
    return False


def _events(platform: Platform, since: int, until: int) -> list[tuple[int, ...]]:
    api, url, found = platform.api(platform.leader()), f"/events?since={since}&limit=500", []
    while url:
        body = api("GET", url).json()
        found += [tuple(int(part) for part in item["id"].split(".")) for item in body["items"]]
        url = body["next"]
    return [position for position in found if position[0] <= until]

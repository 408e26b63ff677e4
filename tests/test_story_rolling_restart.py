"""Every node is restarted, one after the other, while clients write and read: no request fails beyond one retry."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests.request_loop import RequestLoop
from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """One of its own: it is restarted node by node."""
    running = Platform.prepared(tmp_path)
    running.start()
    yield running
    assert running.stop() == 0


@dataclass
class WriteLoop:
    """Creates apps through any member, as a client behind a balancer does: one retry, at another member, same key."""

    platform: Platform
    number: int
    created: dict[str, int] = field(default_factory=dict)
    retries: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        clients = [self.platform.api(member).client for member in range(len(self.platform.members))]
        count = 0
        while not self._stop.is_set():
            count += 1
            name = f"w{self.number}-{count}"
            begun = time.monotonic()
            for attempt in (0, 1):
                member = (count + self.number + attempt) % len(clients)
                problem = self._create(clients[member], name)
                if problem is None:
                    break
                (self.retries if attempt == 0 else self.failures).append(f"{name} at {member}: {problem}")
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            self._stop.wait(0.02)

    def _create(self, client: httpx.Client, name: str) -> str | None:
        try:
            answer = client.post(
                "/app/create", json={"name": name, "memory_mb": 32}, headers={"Idempotency-Key": f"key-{name}"}
            )
        except httpx.HTTPError as error:
            return repr(error)
        if answer.status_code != 201:
            return f"{answer.status_code} {answer.text[:200]}"
        self.created[name] = answer.json()["id"]
        return None

    def stop(self) -> None:
        self._stop.set()


def _restart(platform: Platform, member: int) -> None:
    """As an operator does it: SIGTERM to the node; start.sh starts it again."""
    before = platform.supervisor(member)
    process = psutil.Process(before)
    os.kill(before, signal.SIGTERM)
    process.wait(20)
    url = platform.members[member]

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/health/ready", timeout=3).status_code == 200
        except httpx.HTTPError:
            return False

    wait_for(ready, f"the return of node {member}", 60)


def _able(platform: Platform) -> bool:
    """All members are there and could lead: only then is the next one taken down."""
    status = platform.api(platform.leader()).ok("GET", "/cluster/status")
    return all(member["reachable"] and member["able"] for member in status["members"])


def test_a_rolling_restart_costs_no_request_more_than_one_retry(platform: Platform) -> None:
    api = platform.api()
    app = api.create("served", instances=2)
    api.built("served", "1", archive(EXAMPLES / "hello"))
    api.healthy("served", 2, "1")
    platform.answers(app)
    loops = [WriteLoop(platform, number) for number in range(3)]
    threads = [threading.Thread(target=loop.run) for loop in loops]
    with RequestLoop(platform, app) as reads:
        for thread in threads:
            thread.start()
        try:
            leader = platform.leader()
            others = [member for member in range(len(platform.members)) if member != leader]
            for member in [leader, *others]:
                wait_for(lambda: _able(platform), "every member able to lead", 60)
                _restart(platform, member)
        finally:
            for loop in loops:
                loop.stop()
            for thread in threads:
                thread.join()
    retries = [retry for loop in loops for retry in loop.retries]
    created = {name: id for loop in loops for name, id in loop.created.items()}
    longest = max(loop.longest_s for loop in loops)
    print(f"{len(created)} writes, {len(retries)} repeated once, the longest took {longest:.2f} s")
    print("\n".join(retries))
    assert [failure for loop in loops for failure in loop.failures] == []
    assert len(created) > 100
    assert reads.failures == [], "apps are served all the while"
    listed = _all_apps(platform)
    assert {name: listed.get(name) for name in created} == created, "what was acknowledged is there, once"


def _all_apps(platform: Platform) -> dict[str, int]:
    api = platform.api()
    url, found = "/app?limit=500", {}
    while url:
        page = api.ok("GET", url)
        for item in page["items"]:
            assert item["name"] not in found, "applied twice"
            found[item["name"]] = item["id"]
        url = page["next"]
    return found

"""What members say about themselves while the database hangs, and what every member knows of it: from the API alone."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from omni.testing.mariadb import NoServer, PrivateMariaDB
from tests.running_platform import Platform, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


@pytest.fixture
def mariadb() -> Iterator[PrivateMariaDB]:
    try:
        server = PrivateMariaDB()
    except NoServer as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture
def platform(tmp_path: Path, mariadb: PrivateMariaDB) -> Iterator[Platform]:
    url = mariadb.create("status")
    running = Platform.prepared(tmp_path, environment={"OMNI_DATABASE_URL": url, "OMNI_ENV": "development"})
    running.start()
    yield running
    assert running.stop() == 0


@pytest.mark.long
def test_status_and_health_answer_while_the_database_hangs(platform: Platform, mariadb: PrivateMariaDB) -> None:
    leader = platform.leader()
    status = platform.api(leader).ok("GET", "/cluster/status")
    epoch = status["epoch"]
    wait_for(
        lambda: "database" in platform.api(leader).ok("GET", "/cluster/status")["services"], "the leader's mirror", 20
    )
    os.kill(mariadb.pid, signal.SIGSTOP)
    busy = [threading.Thread(target=_ask_in_vain, args=(url,)) for url in platform.members for _ in range(8)]
    try:
        for thread in busy:  # more than there are threads for Django: all of them hang
            thread.start()
        for member in range(len(platform.members)):
            begun = time.monotonic()
            answer = platform.api(member)("GET", "/cluster/status")
            took = time.monotonic() - begun
            assert answer.status_code == 200, answer.text
            assert took < 3.0, f"{took:.1f} s"  # twice a second's bound, on a busy machine
            body = answer.json()
            assert (body["epoch"], body["database"]["status"]) == (epoch, "down")
            assert int(answer.headers["Omni-Stale"]) >= 0
            health = httpx.get(platform.members[member] + "/health", timeout=5)
            assert health.status_code == 503
            assert health.json()["parts"]["raft"]["status"] == "up", health.text
            assert httpx.get(platform.members[member] + "/health/ready", timeout=5).status_code == 503
            assert httpx.get(platform.members[member] + "/health/live", timeout=5).status_code == 200
        wait_for(
            lambda: platform.api(leader).ok("GET", "/cluster/status")["services"]["database"]["state"] == "down",
            "the leader's word about the database",
            20,
        )
    finally:
        os.kill(mariadb.pid, signal.SIGCONT)
        for thread in busy:
            thread.join()
    wait_for(lambda: _ready(platform), "the return", 60)
    platform.api().create("afterwards")


def _ask_in_vain(url: str) -> None:
    try:
        httpx.get(f"{url}/schema", timeout=10)
        httpx.get(f"{url}/admin/login/", timeout=10)
        httpx.post(f"{url}/app/create", timeout=10, headers={"Authorization": "Bearer omni_aaaaaaaa_" + "a" * 43})
    except httpx.HTTPError:
        pass


def _ready(platform: Platform) -> bool:
    try:
        return all(httpx.get(f"{url}/health/ready", timeout=3).status_code == 200 for url in platform.members)
    except httpx.HTTPError:
        return False


@pytest.mark.long
def test_a_leader_frozen_inside_a_transaction_is_replaced_and_its_write_is_gone(
    platform: Platform, mariadb: PrivateMariaDB
) -> None:
    """Its connection holds the fence's row; the next leader removes it (DECISIONS 1)."""
    leader = platform.leader()
    follower = next(member for member in range(len(platform.members)) if member != leader)
    api = platform.api(follower)
    api.create("before")
    group = platform.supervisor(leader)
    stop = threading.Event()
    writers = [threading.Thread(target=_write, args=(platform, leader, number, stop)) for number in range(8)]
    for writer in writers:
        writer.start()
    time.sleep(0.5)
    os.killpg(group, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        api.ok("POST", "/app/create", {"name": "after"}, headers={"Idempotency-Key": "after"})
        took = time.monotonic() - begun
        assert took < 3.0, f"{took:.2f} s"
        assert platform.leader() != leader
    finally:
        os.killpg(group, signal.SIGCONT)
        stop.set()
        for writer in writers:
            writer.join()
    wait_for(lambda: _ready(platform), "the return of the frozen member", 60)
    events = api.ok("GET", "/events?limit=500")["items"]
    epochs = [event["epoch"] for event in reversed(events)]
    assert epochs == sorted(epochs), "no write of the old epoch after the new leader's first"


def _write(platform: Platform, member: int, number: int, stop: threading.Event) -> None:
    client = platform.api(member).client
    count = 0
    while not stop.is_set():
        count += 1
        try:
            client.post("/app/create", json={"name": f"f{number}-{count}"}, timeout=5)
        except httpx.HTTPError:
            return

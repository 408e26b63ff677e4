"""What must survive: builds their worker and broker, instances every control-plane process, memory a large upload."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of its own: these stories kill parts of it."""
    timings = {"build_lease_s": 6, "build_heartbeat_s": 1, "build_republish_s": 3}
    running = Platform.prepared(tmp_path_factory.mktemp("endurance"), timings=timings)
    running.start()
    yield running
    assert running.stop() == 0


def test_a_build_survives_its_workers_death_and_ends_once(platform: Platform) -> None:
    api = platform.api()
    api.create("slow")
    build = api.upload("slow", "1", archive(EXAMPLES / "python-flask"), "?deploy=false").json()
    wait_for(lambda: api.ok("GET", build["links"]["self"])["status"] == "building", "the build's start", 30)
    for process in platform.processes("worker"):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()

    def ended() -> dict[str, object] | None:
        found = api.ok("GET", build["links"]["self"])
        return found if found["status"] in ("succeeded", "failed") else None

    found = wait_for(ended, "the build's end", 120)
    assert found["status"] == "succeeded"
    assert found["attempt"] == 2
    assert len(api.ok("GET", "/app/slow/releases")["items"]) == 1


@pytest.mark.parametrize("fault", ["frozen", "killed"])
def test_an_upload_does_not_need_the_broker(platform: Platform, fault: str) -> None:
    api = platform.api()
    name = f"nobroker-{fault}"
    api.create(name)
    started = time.monotonic()
    assert api.upload(name, "0", archive(EXAMPLES / "hello", n__txt=fault), "?deploy=false").status_code == 202
    usual = time.monotonic() - started
    pid = platform.processes("broker")[0].pid
    os.kill(pid, signal.SIGSTOP if fault == "frozen" else signal.SIGKILL)
    try:
        started = time.monotonic()
        answer = api.upload(name, "1", archive(EXAMPLES / "hello", n__txt=fault + "1"), "?deploy=false")
        took = time.monotonic() - started
        assert answer.status_code == 202
        assert took < usual * 20 + 1, f"{took:.2f} s against {usual:.2f} s with a broker"
    finally:
        if fault == "frozen":
            os.kill(pid, signal.SIGCONT)
    path = answer.json()["links"]["self"]
    wait_for(lambda: api.ok("GET", path)["status"] == "succeeded", "the build after the broker's return", 90)


def test_cancel_stops_a_running_build_and_its_children(platform: Platform) -> None:
    api = platform.api()
    api.create("cancelled")
    build = api.upload("cancelled", "1", archive(EXAMPLES / "python-flask"), "?deploy=false").json()
    wait_for(lambda: api.ok("GET", build["links"]["self"])["status"] == "building", "the build's start", 30)
    api.ok("POST", build["links"]["self"] + "/cancel")
    wait_for(lambda: api.ok("GET", build["links"]["self"])["status"] == "cancelled", "the cancel", 10)
    assert api.upload("cancelled", "1", archive(EXAMPLES / "hello"), "?deploy=false").status_code == 202


def test_instances_outlive_every_process_of_their_node(platform: Platform) -> None:
    api = platform.api()
    app = api.create("outliving", instances=2)
    api.built("outliving", "1", archive(EXAMPLES / "hello"))
    api.healthy("outliving", 2, "1")
    platform.answers(app)
    before = {i["id"]: i["restarts"] for i in api.ok("GET", "/app/outliving/instances?status=running")["items"]}
    failures: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.wait(0.02):
            try:
                if platform.open(app).status_code != 200:
                    failures.append("not 200")
            except httpx.HTTPError as error:
                failures.append(repr(error))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        for member in range(len(platform.members)):
            os.killpg(platform.supervisor(member), signal.SIGKILL)
        wait_for(lambda: _ready(platform), "the platform's return", 90)
        api.healthy("outliving", 2, "1")
    finally:
        stop.set()
        asking.join()
    after = {i["id"]: i["restarts"] for i in api.ok("GET", "/app/outliving/instances?status=running")["items"]}
    assert after == before, "the instances were adopted, not restarted"
    assert failures == []


def _ready(platform: Platform) -> bool:
    try:
        return all(httpx.get(f"{member}/health/ready", timeout=3).status_code == 200 for member in platform.members)
    except httpx.HTTPError:
        return False


def test_a_crash_is_restarted_with_its_evidence(platform: Platform) -> None:
    api = platform.api()
    app = api.create("crashy")
    api.built("crashy", "1", archive(EXAMPLES / "hello"))
    api.healthy("crashy", 1, "1")
    instance = api.ok("GET", "/app/crashy/instances?status=running")["items"][0]["id"]
    platform.app_process(instance).kill()
    wait_for(lambda: api.ok("GET", f"/app/crashy/instances/{instance}/details")["restarts"] >= 1, "the restart", 30)
    api.healthy("crashy", 1, "1")
    found = api.ok("GET", f"/app/crashy/instances/{instance}/details")
    assert found["last_exit"]["signal"] == 9
    assert found["last_exit"]["lines"]
    platform.answers(app)


def test_a_gigabyte_costs_the_web_process_no_memory(platform: Platform) -> None:
    api = platform.api(1)
    api.create("big")
    size = 1 << 30
    webs = [
        process for node in platform.config["instances"] for process in platform.processes(f"node-{node['port']}/web")
    ]
    before = {process.pid: process.memory_info().rss for process in webs}
    peak = dict(before)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for process in webs:
                with contextlib.suppress(psutil.NoSuchProcess):
                    peak[process.pid] = max(peak[process.pid], process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        body = (b"\x1f\x8b" + b"\0" * ((1 << 20) - 2) if i == 0 else b"\0" * (1 << 20) for i in range(size >> 20))
        headers = {"Content-Type": "application/gzip", "Content-Length": str(size)}
        answer = api.client.post("/app/big/release/1/upload?deploy=false", content=body, headers=headers, timeout=300)
    finally:
        done.set()
        watching.join()
    assert answer.status_code == 202, answer.text
    growth = max(peak[pid] - before[pid] for pid in before) / (1 << 20)
    assert growth < 64, f"a web process grew by {growth:.0f} MiB"

"""The data plane needs no one: apps are served while control plane, database and broker are gone, and adopted after."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil
import pytest

from omni.testing.mariadb import PrivateMariaDB
from tests.request_loop import RequestLoop
from tests.running_platform import EXAMPLES, PROJECT, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

AWAY_S = 7.0  # longer than a node's lease: silence alone would have lost every node
CONTROL_PLANE = ("web", "daemon", "raft")


@pytest.fixture(scope="module")
def database() -> Iterator[PrivateMariaDB]:
    with PrivateMariaDB() as server:
        yield server


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, database: PrivateMariaDB) -> Iterator[Platform]:
    """A platform of its own, on a database that can be taken away."""
    environment = {"OMNI_DATABASE_URL": database.create("omni"), "OMNI_ENV": "development"}
    running = Platform.prepared(tmp_path_factory.mktemp("data-plane"), environment=environment)
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def app(platform: Platform) -> dict[str, Any]:
    """An app with an instance on each node, served."""
    api = platform.api()
    made = api.create("steady", instances=len(platform.members))
    assert api.built("steady", "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("steady", len(platform.members), "1")
    platform.answers(made)
    return made


def instances(platform: Platform) -> dict[int, tuple[int, int]]:
    """Instance → (pid of its watcher, restarts), from the agents' own records."""
    found = {}
    for path in sorted((platform.state / "instances").glob("[0-9]*/state.json")):
        with contextlib.suppress(OSError, ValueError):
            observed = json.loads(path.read_text())["observed"]
            if observed["status"] == "running":
                found[int(path.parent.name)] = (int(observed["handle"]["pid"]), int(observed["restarts"]))
    return found


def ports(platform: Platform) -> list[int]:
    return [node["port"] for node in platform.config["instances"]]


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def kill_control_plane(platform: Platform, *more: str) -> None:
    """SIGKILL to start.sh, so that nothing comes back by itself, and to every process of the control plane."""
    assert platform.process is not None
    platform.process.kill()
    platform.process.wait(10)
    for member, port in enumerate(ports(platform)):
        os.kill(platform.supervisor(member), signal.SIGKILL)
        for role in (*CONTROL_PLANE, *more):
            kill(platform.processes(f"node-{port}/{role}"))
    for role in (*CONTROL_PLANE, *more):  # one that was being born when its parent was killed is killed, too

        def gone(role: str = role) -> bool:
            left = [process for port in ports(platform) for process in platform.processes(f"node-{port}/{role}")]
            kill(left)
            return not left

        wait_for(gone, f"the end of every {role}", 10)


def nobody_answers(platform: Platform) -> bool:
    for member in platform.members:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{member}/health/live", timeout=1)
            return False
    return True


def away(seconds: float) -> None:
    """Let an outage last: that nothing happens in the meantime can only be seen by waiting."""
    time.sleep(seconds)


def no_node_was_lost(platform: Platform, since: int) -> bool:
    events = platform.api().ok("GET", f"/events?since={since}&limit=500")["items"]
    return not [event["kind"] for event in events if event["kind"] in ("node.lost", "instance.lost")]


def index(platform: Platform) -> int:
    return int(platform.api().ok("GET", "/cluster/status")["write_index"])


@pytest.mark.parametrize(
    "more", [pytest.param((), marks=pytest.mark.long, id="agents live"), pytest.param(("agent",), id="agents too")]
)
def test_apps_are_served_while_every_process_of_the_control_plane_is_killed(
    platform: Platform, app: dict[str, Any], more: tuple[str, ...]
) -> None:
    since, before = index(platform), instances(platform)
    assert len(before) == len(platform.members)
    with RequestLoop(platform, app) as loop:
        kill_control_plane(platform, *more)
        assert nobody_answers(platform)
        away(AWAY_S)
        assert instances(platform) == before
        served = len(loop.answers)
        platform.start()
        platform.api().healthy("steady", len(platform.members), "1")
    assert loop.failures == []
    assert served > 100
    assert instances(platform) == before, "what ran was adopted, not started anew"
    assert no_node_was_lost(platform, since)


@pytest.mark.long
def test_agents_restart_what_crashes_while_nobody_tells_them_to(platform: Platform, app: dict[str, Any]) -> None:
    before = instances(platform)
    kill_control_plane(platform)
    victim = min(before)
    platform.app_process(victim).kill()

    def restarted() -> bool:
        now = instances(platform).get(victim)
        return now is not None and now[1] == before[victim][1] + 1

    wait_for(restarted, "the restart by its agent", 20)
    platform.answers(app)
    platform.start()
    api = platform.api()
    api.healthy("steady", len(platform.members), "1")
    wait_for(
        lambda: api.ok("GET", f"/app/steady/instances/{victim}/details")["restarts"] == before[victim][1] + 1,
        "the report of it", 20,
    )  # fmt: skip
    assert {pk: pid for pk, pid in instances(platform).items() if pk != victim} == {
        pk: pid for pk, pid in before.items() if pk != victim
    }


@pytest.mark.long
def test_an_ingress_that_restarts_alone_serves_from_its_last_table(platform: Platform, app: dict[str, Any]) -> None:
    kill_control_plane(platform, "agent")
    kill(platform.processes("ingress"))
    kill(platform.processes("caddy"))
    with pytest.raises(httpx.HTTPError):
        platform.open(app)
    command = [sys.executable, "-m", "agent.ingress", "--config", str(platform.state / "ingress" / "ingress.json")]
    alone = subprocess.Popen(command, cwd=PROJECT, start_new_session=True)
    try:
        wait_for(lambda: _answers(lambda: platform.open(app)), "an answer by the last table", 20)
        with RequestLoop(platform, app) as loop:
            away(3.0)
        assert loop.failures == []
        assert len(loop.answers) > 50
    finally:
        alone.terminate()
        alone.wait(15)
    platform.start()
    platform.api().healthy("steady", len(platform.members), "1")
    wait_for(lambda: _answers(lambda: platform.open(app)), "an answer after the return", 20)


def _answers(ask: Callable[[], httpx.Response]) -> bool:
    try:
        return ask().status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(
    "how", ["stopped", pytest.param("killed", marks=pytest.mark.long), pytest.param("frozen", marks=pytest.mark.long)]
)
def test_apps_are_served_while_the_database_is_gone(
    platform: Platform, database: PrivateMariaDB, app: dict[str, Any], how: str
) -> None:
    since, before = index(platform), instances(platform)
    with RequestLoop(platform, app) as loop:
        if how == "frozen":
            os.kill(database.pid, signal.SIGSTOP)
        else:
            database.stop(kill=True) if how == "killed" else _shut_down(database)
        try:
            wait_for(lambda: platform.api()("GET", "/health").status_code == 503, "the news of it", 20)
            away(AWAY_S)
            answer = platform.api()("POST", "/app/create", {"name": "refused"})
            assert answer.status_code == 503, answer.text
        finally:
            os.kill(database.pid, signal.SIGCONT) if how == "frozen" else database.start()
        wait_for(lambda: platform.api()("GET", "/health/ready").status_code == 200, "the platform's return", 40)
        platform.api().healthy("steady", len(platform.members), "1")
    assert loop.failures == []
    assert instances(platform) == before
    assert no_node_was_lost(platform, since)
    made = wait_for(
        lambda: platform.api()("POST", "/app/create", {"name": f"after-{how}"}).status_code == 201, "a write"
    )
    assert made


def _shut_down(database: PrivateMariaDB) -> None:
    """As an operator stops it, keeping its files."""
    process = psutil.Process(database.pid)
    process.terminate()
    process.wait(30)
    database.stop(kill=True)


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, marks=pytest.mark.long, id="frozen")],
)
def test_apps_are_served_while_the_broker_is_gone(
    platform: Platform, app: dict[str, Any], number: signal.Signals
) -> None:
    before = instances(platform)
    broker = platform.processes("broker")[0]
    with RequestLoop(platform, app) as loop:
        broker.send_signal(number)
        try:
            answer = platform.api().upload(
                "steady", f"9-{number.name}", archive(EXAMPLES / "hello", n__txt=number.name), "?deploy=false"
            )
            assert answer.status_code == 202, answer.text
            away(2.0)
        finally:
            if number == signal.SIGSTOP:
                broker.send_signal(signal.SIGCONT)
        build = answer.json()["links"]["self"]
        wait_for(lambda: platform.api().ok("GET", build)["status"] == "succeeded", "the build after its return", 90)
    assert loop.failures == []
    assert instances(platform) == before

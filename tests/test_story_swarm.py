"""An app on Docker Swarm mode, on a swarm of the test's own: the whole life of an app by the same API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from omni.testing.docker_engine import DockerEngine
from omni.testing.swarm import Swarm, missing
from tests.running_platform import EXAMPLES, Api, Platform, archive, wait_for
from tests.test_story_exec import heard

pytestmark = [pytest.mark.story, pytest.mark.long, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with Swarm("osws") as swarm:
        yield swarm.engines[0]


@pytest.fixture(scope="module")
def running(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    given = {"port_base": 31400, "port_count": 100, "docker": engine.url}
    platform = Platform.prepared(tmp_path_factory.mktemp("swarm"), members=1, agent=given)
    platform.start()
    yield platform
    assert platform.stop() == 0
    assert services(engine) == []
    assert "omni-" not in engine.docker("network", "ls")


def test_an_app_lives_on_a_swarm_by_the_same_api(running: Platform, engine: DockerEngine) -> None:
    api = running.api()
    wait_for(lambda: "swarm" in api.ok("GET", "/nodes")["items"][0]["runtimes"], "a node with a swarm", 90)
    app = api.create("handed", runtime="swarm", instances=2)
    assert api.built("handed", "v1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("handed", 2, "v1")
    assert len(services(engine)) == 2
    assert "service" in details(api, "handed")[0]["handle"]
    wait_for(lambda: running.open(app).status_code == 200, "its page", 60)
    api.ok("POST", "/app/handed/scale", {"instances": 3})
    api.healthy("handed", 3, "v1")
    assert api.built("handed", "v2", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("handed", 3, "v2")
    assert running.open(app).status_code == 200
    api.ok("POST", "/app/handed/rollback", {"version": "v1"})
    api.healthy("handed", 3, "v1")
    wait_for(lambda: len(services(engine)) == 3, "the end of the other release's services", 60)
    wait_for(lambda: api.ok("GET", "/app/handed/logs?tail=20")["items"], "what it wrote", 30)
    wait_for(lambda: api.ok("GET", "/app/handed/metrics")["memory_bytes"], "its figures", 60)

    before = details(api, "handed")[0]
    engine.docker("kill", container_of(engine, before["handle"]["service"]))
    wait_for(lambda: details(api, "handed", before["id"])[0]["restarts"] == 1, "the instance again", 60)
    api.healthy("handed", 3, "v1")
    assert details(api, "handed", before["id"])[0]["last_exit"]["signal"] == 9

    refused = api("PATCH", "/app/handed", {"singleton": True, "instances": 1})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "swarm_has_no_singletons")
    api.ok("DELETE", "/app/handed")
    wait_for(lambda: services(engine) == [], "the end of its services", 90)


def test_what_is_asked_of_an_app_or_of_one_instance_happens_on_a_swarm_too(
    running: Platform, engine: DockerEngine
) -> None:
    api = running.api()
    wait_for(lambda: "swarm" in api.ok("GET", "/nodes")["items"][0]["runtimes"], "a node with a swarm", 90)
    api.create("asked", runtime="swarm", instances=2)
    assert api.built("asked", "v1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("asked", 2, "v1")
    first = starts(api)
    api.ok("POST", "/app/asked/restart")
    wait_for(lambda: len(starts(api)) == 2 and not starts(api) & first, "both again", 120)
    api.healthy("asked", 2, "v1")

    one = details(api, "asked")[0]
    api.ok("POST", f"/app/asked/instances/{one['id']}/restart")
    wait_for(lambda: details(api, "asked", one["id"])[0]["restarts"] == one["restarts"] + 1, "the one again", 120)
    api.healthy("asked", 2, "v1")
    assert details(api, "asked", one["id"])[0]["handle"]["service"] != one["handle"]["service"]

    made = api.ok("POST", f"/app/asked/instances/{one['id']}/exec", {"command": "read x; echo $x $OMNI_APP; exit 3"})
    with connect(f"ws{running.members[0].removeprefix('http')}{made['url']}", proxy=None) as socket:
        socket.send(b"\x00hello\n")
        out, err, end = heard(socket)
    assert (out, err, end["code"], end["reason"]) == (b"hello asked\n", b"", 3, "exited")

    api.ok("POST", f"/app/asked/instances/{one['id']}/stop")
    wait_for(lambda: details(api, "asked", one["id"])[0]["status"] == "stopped", "its end", 120)
    api.healthy("asked", 2, "v1")
    wait_for(lambda: len(services(engine)) == 2, "one service for each", 90)
    api.ok("POST", "/app/asked/stop")
    wait_for(lambda: services(engine) == [], "the end of its services", 120)
    api.ok("POST", "/app/asked/start")
    api.healthy("asked", 2, "v1")
    api.ok("DELETE", "/app/asked")
    wait_for(lambda: services(engine) == [], "the end of the app's services", 120)


def starts(api: Api) -> set[tuple[int, int]]:
    """(instance, restarts) of everything that is healthy."""
    return {(one["id"], one["restarts"]) for one in details(api, "asked") if one["health"] == "healthy"}


def services(engine: DockerEngine) -> list[str]:
    return engine.docker("service", "ls", "--quiet").split()


def container_of(engine: DockerEngine, service: str) -> str:
    return engine.docker("ps", "--quiet", "--filter", f"label=com.docker.swarm.service.id={service}").strip()


def details(api: Api, app: str, instance_id: int | None = None) -> list[dict[str, Any]]:
    found = api.ok("GET", f"/app/{app}/instances?status=running")["items"]
    every = [instance_id] if instance_id is not None else [one["id"] for one in found]
    return [api.ok("GET", f"/app/{app}/instances/{one}/details") for one in every]

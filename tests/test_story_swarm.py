"""An app on Docker Swarm mode, on a swarm of the test's own: the whole life of an app by the same API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from omni.testing.docker_engine import DockerEngine
from omni.testing.swarm import Swarm, missing
from tests.running_platform import EXAMPLES, Api, Platform, archive, wait_for

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
    assert "service" in details(api)[0]["handle"]
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

    before = details(api)[0]
    engine.docker("kill", container_of(engine, before["handle"]["service"]))
    wait_for(lambda: details(api, before["id"])[0]["restarts"] == 1, "the instance again", 60)
    api.healthy("handed", 3, "v1")
    assert details(api, before["id"])[0]["last_exit"]["signal"] == 9

    refused = api("PATCH", "/app/handed", {"singleton": True, "instances": 1})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "swarm_has_no_singletons")
    api.ok("DELETE", "/app/handed")
    wait_for(lambda: services(engine) == [], "the end of its services", 90)


def services(engine: DockerEngine) -> list[str]:
    return engine.docker("service", "ls", "--quiet").split()


def container_of(engine: DockerEngine, service: str) -> str:
    return engine.docker("ps", "--quiet", "--filter", f"label=com.docker.swarm.service.id={service}").strip()


def details(api: Api, instance_id: int | None = None) -> list[dict[str, Any]]:
    found = api.ok("GET", "/app/handed/instances?status=running")["items"]
    every = [instance_id] if instance_id is not None else [one["id"] for one in found]
    return [api.ok("GET", f"/app/handed/instances/{one}/details") for one in every]

"""Apps as containers, on an engine of the test's own: deployed, opened through the ingress, adopted, swept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from omni.testing.docker_engine import DockerEngine, missing
from tests.running_platform import EXAMPLES, Api, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    made = DockerEngine(Path(tempfile.mkdtemp(prefix="oe-")))
    try:
        made.start("--live-restore")
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def running(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    given = {"port_base": 31300, "port_count": 100, "docker": engine.url}
    platform = Platform.prepared(tmp_path_factory.mktemp("docker"), agent=given)
    platform.start()
    yield platform
    assert platform.stop() == 0
    assert engine.docker("ps", "--all", "--quiet") == ""
    assert "omni-" not in engine.docker("network", "ls")


def test_an_app_runs_in_containers_and_survives_its_engine(running: Platform, engine: DockerEngine) -> None:
    api = running.api()
    node = wait_for(lambda: with_docker(api), "a node with docker", 30)
    assert node["runtimes_missing"] == {}
    app = api.create("boxed", runtime="docker", instances=2)
    assert api.built("boxed", "v1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("boxed", 2, "v1")
    assert "container" in instances(api)[0]["handle"]
    assert open_app(running, app).status_code == 200
    before = containers(engine)
    assert len(before) == 2

    engine.kill()
    for _ in range(20):
        assert open_app(running, app).status_code == 200
    wait_for(lambda: not with_docker(api), "the node without docker", 30)
    engine.start("--live-restore")
    wait_for(lambda: with_docker(api), "the node with docker again", 30)
    assert containers(engine) == before
    assert [one["restarts"] for one in api.ok("GET", "/app/boxed/instances")["items"]] == [0, 0]

    engine.docker("rm", "--force", sorted(before)[0])
    wait_for(lambda: len(containers(engine) - before) == 1, "another container", 30)
    api.healthy("boxed", 2, "v1")
    lines = api.ok("GET", "/app/boxed/logs?tail=50")["items"]
    assert lines


def with_docker(api: Api) -> dict[str, Any] | None:
    found = [node for node in api.ok("GET", "/nodes")["items"] if "docker" in node["runtimes"]]
    return found[0] if found else None


def instances(api: Api) -> list[dict[str, Any]]:
    found = api.ok("GET", "/app/boxed/instances")["items"]
    return [api.ok("GET", f"/app/boxed/instances/{one['id']}/details") for one in found]


def containers(engine: DockerEngine) -> set[str]:
    return set(engine.docker("ps", "--quiet", "--filter", "label=omni.instance").split())


def open_app(platform: Platform, app: dict[str, Any]) -> httpx.Response:
    return platform.open(app)

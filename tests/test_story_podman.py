"""Apps as containers of Podman: from a Dockerfile, a registry and an archive; entered, adopted, swept."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni.testing.image_registry import ImageRegistry
from omni.testing.podman_engine import PodmanEngine, missing
from tests.running_platform import EXAMPLES, Platform, archive, wait_for
from tests.test_story_docker import DOCKERFILE, containers, named, open_app, platform_on, said_inside, with_docker

pytestmark = [pytest.mark.story, pytest.mark.long, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]


@pytest.fixture(scope="module")
def registry() -> Iterator[ImageRegistry]:
    with ImageRegistry() as made:
        yield made


@pytest.fixture(scope="module")
def engine(registry: ImageRegistry) -> Iterator[PodmanEngine]:
    made = PodmanEngine(Path(tempfile.mkdtemp(prefix="op-")))
    made.insecure = (registry.host,)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def running(engine: PodmanEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    yield from platform_on(engine, tmp_path_factory.mktemp("podman"), 32300)


def test_an_app_runs_in_podmans_containers_and_outlives_its_service(running: Platform, engine: PodmanEngine) -> None:
    api = running.api()
    wait_for(lambda: with_docker(api), "a node with an engine", 90)
    app = api.create("boxed", runtime="docker", instances=2)
    assert api.built("boxed", "v1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("boxed", 2, "v1")
    wait_for(lambda: open_app(running, app).status_code == 200, "its page", 60)
    before = containers(engine, app)
    assert len(before) == 2
    assert said_inside(running, api) == (b"hello from a container\n", 5)

    engine.kill()
    for _ in range(20):
        assert open_app(running, app).status_code == 200
    wait_for(lambda: not with_docker(api), "the node without an engine", 90)
    engine.start()
    wait_for(lambda: with_docker(api), "the node with an engine again", 90)
    assert containers(engine, app) == before
    engine.docker("rm", "--force", sorted(before)[0])
    wait_for(lambda: len(containers(engine, app) - before) == 1, "another container", 90)
    api.healthy("boxed", 2, "v1")
    assert api.ok("GET", "/app/boxed/logs?tail=50")["items"]


def test_images_come_from_a_dockerfile_a_registry_and_an_archive(
    running: Platform, engine: PodmanEngine, registry: ImageRegistry
) -> None:
    api = running.api()
    wait_for(lambda: with_docker(api), "a node with an engine", 90)
    engine.import_busybox("busybox:latest")
    app = api.create("imaged", runtime="docker", instances=1)

    build = api.built("imaged", "v1", archive(Path("/nowhere"), Dockerfile=DOCKERFILE, index__html="from a Dockerfile"))
    assert (build["status"], build["builder"], build["error"]) == ("succeeded", "dockerfile", None)
    said = [line["line"] for line in api.ok("GET", f"{build['links']['logs']}?limit=500")["items"]]
    assert "made in an engine" in said
    api.healthy("imaged", 1, "v1")
    wait_for(lambda: open_app(running, app).text == "from a Dockerfile", "its page", 60)

    name = f"{registry.host}/team/site:1"
    given = DOCKERFILE.replace("COPY index.html", "RUN mkdir /www && echo from a registry >").encode()
    engine.docker("build", "-t", name, "-", stdin=given)
    engine.docker("push", name)
    engine.docker("rmi", name)
    build = named(api, "v2", name)
    assert build["status"] == "succeeded", build
    api.healthy("imaged", 1, "v2")
    wait_for(lambda: open_app(running, app).text == "from a registry\n", "its page", 60)
    missing_one = named(api, "v3", f"{registry.host}/team/none:1")
    assert missing_one["error"]["code"] == "image_not_found", missing_one

    engine.docker("build", "-t", "saved:1", "-", stdin=given.replace(b"from a registry", b"saved"))
    engine.docker("save", "-o", str(engine.folder / "saved.tar"), "saved:1")
    engine.docker("rmi", "saved:1")
    build = api.built("imaged", "v4", (engine.folder / "saved.tar").read_bytes())
    assert (build["status"], build["builder"]) == ("succeeded", "image"), build
    api.healthy("imaged", 1, "v4")
    wait_for(lambda: open_app(running, app).text == "saved\n", "its page", 60)

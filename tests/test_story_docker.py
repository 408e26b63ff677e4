"""Apps as containers, on an engine of the test's own: deployed, opened through the ingress, adopted, swept."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from omni.testing.docker_engine import DockerEngine, missing
from omni.testing.image_registry import ImageRegistry
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
    yield from platform_on(engine, tmp_path_factory.mktemp("docker"), 31300)


def platform_on(engine: DockerEngine, folder: Path, port_base: int) -> Iterator[Platform]:
    """A platform of one node whose apps run on that engine; afterwards nothing of it may be left there."""
    given = {"port_base": port_base, "port_count": 100, "docker": engine.url}
    platform = Platform.prepared(folder, members=1, agent=given)
    platform.start()
    yield platform
    assert platform.stop() == 0
    assert engine.docker("ps", "--all", "--quiet") == ""
    assert "omni-" not in engine.docker("network", "ls")


def said_inside(running: Platform, api: Api) -> tuple[bytes, int]:
    """What a command in the first container says, over the API's WebSocket, and its exit code."""
    line = 'read x; echo "$x from a container"; exit 5'
    path = f"/app/boxed/instances/{instances(api)[0]['id']}/exec"
    url = api.ok("POST", path, {"command": line})["url"]
    out, code = b"", -1
    with connect(f"ws{running.members[0].removeprefix('http')}{url}", proxy=None) as socket:
        socket.send(b"\x00hello\n")
        for message in socket:
            if isinstance(message, bytes):
                out += message[1:]
            else:
                code = json.loads(message)["code"]
    return out, code


@pytest.mark.long
def test_an_app_runs_in_containers_and_survives_its_engine(running: Platform, engine: DockerEngine) -> None:
    api = running.api()
    node = wait_for(lambda: with_docker(api), "a node with docker", 90)
    assert "docker" not in node["runtimes_missing"]
    app = api.create("boxed", runtime="docker", instances=2)
    assert api.built("boxed", "v1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("boxed", 2, "v1")
    assert "container" in instances(api)[0]["handle"]
    wait_for(lambda: open_app(running, app).status_code == 200, "its page", 60)
    before = containers(engine, app)
    assert len(before) == 2
    assert said_inside(running, api) == (b"hello from a container\n", 5)

    engine.kill()
    for _ in range(20):
        assert open_app(running, app).status_code == 200
    wait_for(lambda: not with_docker(api), "the node without docker", 90)
    engine.start("--live-restore")
    wait_for(lambda: with_docker(api), "the node with docker again", 90)
    assert containers(engine, app) == before
    assert [one["restarts"] for one in api.ok("GET", "/app/boxed/instances")["items"]] == [0, 0]

    engine.docker("rm", "--force", sorted(before)[0])
    wait_for(lambda: len(containers(engine, app) - before) == 1, "another container", 90)
    api.healthy("boxed", 2, "v1")
    lines = api.ok("GET", "/app/boxed/logs?tail=50")["items"]
    assert lines


DOCKERFILE = """FROM busybox
COPY index.html /www/index.html
RUN echo made in an engine
EXPOSE 8042
CMD ["sh", "-c", "exec httpd -f -p $PORT -h /www"]
"""


@pytest.mark.long
def test_images_come_from_a_dockerfile_a_registry_and_an_archive(running: Platform, engine: DockerEngine) -> None:
    api = running.api()
    wait_for(lambda: with_docker(api), "a node with docker", 90)
    engine.import_busybox("busybox:latest")
    app = api.create("imaged", runtime="docker", instances=1)

    build = api.built("imaged", "v1", archive(Path("/nowhere"), Dockerfile=DOCKERFILE, index__html="from a Dockerfile"))
    assert (build["status"], build["builder"], build["error"]) == ("succeeded", "dockerfile", None)
    said = [line["line"] for line in api.ok("GET", f"{build['links']['logs']}?limit=500")["items"]]
    assert "made in an engine" in said
    api.healthy("imaged", 1, "v1")
    wait_for(lambda: open_app(running, app).text == "from a Dockerfile", "its page", 60)

    with ImageRegistry("anna:geheim") as registry:
        name = f"{registry.host}/team/site:1"
        engine.docker(
            "build",
            "-t",
            name,
            "-",
            stdin=DOCKERFILE.replace("COPY index.html", "RUN mkdir /www && echo from a registry >").encode(),
        )
        engine.docker("login", "-u", "anna", "-p", "geheim", registry.host)
        engine.docker("push", name)
        engine.docker("logout", registry.host)
        engine.docker("rmi", name)
        assert failed(api, "v2", f"{registry.host}/team/none:1") == "registry_refused"
        given = {"registry": registry.host, "username": "anna", "password": "geheim"}
        shown = api.ok("POST", "/orgs/default/registries", given)
        assert shown["password"] == {"secret": True}
        assert failed(api, "v2", f"{registry.host}/team/none:1") == "image_not_found"
        build = named(api, "v2", name)
        assert build["status"] == "succeeded", build
        assert build["image"].startswith(f"{registry.host}/team/site@sha256:")
    assert failed(api, "v3", f"{registry.host}/team/site:1") == "registry_unreachable"
    api.healthy("imaged", 1, "v2")
    wait_for(lambda: open_app(running, app).text == "from a registry\n", "its page", 60)

    engine.docker(
        "build",
        "-t",
        "saved:1",
        "-",
        stdin=DOCKERFILE.replace("COPY index.html", "RUN mkdir /www && echo saved >").encode(),
    )
    engine.docker("save", "-o", str(engine.folder / "saved.tar"), "saved:1")
    engine.docker("rmi", "saved:1")
    build = api.built("imaged", "v4", gzip.compress((engine.folder / "saved.tar").read_bytes(), 1))
    assert (build["status"], build["builder"]) == ("succeeded", "image"), build
    api.healthy("imaged", 1, "v4")
    wait_for(lambda: open_app(running, app).text == "saved\n", "its page", 60)
    assert "saved" not in engine.docker("image", "ls", "--format", "{{.Repository}}")

    answer = api("POST", "/app/imaged/rollback", {"version": "v1"})
    assert answer.status_code == 202
    api.healthy("imaged", 1, "v1")
    wait_for(lambda: open_app(running, app).text == "from a Dockerfile", "its page", 60)


@pytest.mark.long
def test_a_dockerfile_build_is_cancelled_within_seconds(running: Platform, engine: DockerEngine) -> None:
    api = running.api()
    engine.import_busybox("busybox:latest")
    api.create("slow", runtime="docker")
    data = archive(Path("/nowhere"), Dockerfile="FROM busybox\nRUN echo begun && sleep 600\n")
    build = api.upload("slow", "v1", data).json()
    logs = f"{build['links']['logs']}?limit=100"
    wait_for(
        lambda: [one for one in api.ok("GET", logs)["items"] if one["line"] == "begun"], "the build's first word", 180
    )
    api.ok("POST", f"{build['links']['self']}/cancel")
    ended = wait_for(lambda: status(api, build) not in ("queued", "building") and status(api, build), "its end", 60)
    assert ended == "cancelled"
    wait_for(lambda: "sleep 600" not in engine.docker("ps", "--no-trunc"), "the end of its container", 60)


@pytest.mark.long
@pytest.mark.parametrize(
    ("example", "says"), [("python-flask", ""), ("node-web", ""), ("static-site", "<"), ("hello", "")]
)
def test_the_examples_run_in_containers_as_they_are(running: Platform, example: str, says: str) -> None:
    api = running.api()
    wait_for(lambda: with_docker(api), "a node with docker", 90)
    app = api.create(example, runtime="docker")
    assert api.built(example, "v1", archive(EXAMPLES / example))["status"] == "succeeded"
    api.healthy(example, 1, "v1")
    found = wait_for(lambda: (answer := open_app(running, app)).status_code == 200 and answer, "its page", 60)
    assert says in found.text
    wait_for(lambda: api.ok("GET", f"/app/{example}/metrics")["network_rx_bytes"], "figures of its network", 30)


def status(api: Api, build: dict[str, Any]) -> str:
    return str(api.ok("GET", build["links"]["self"])["status"])


def named(api: Api, version: str, image: str) -> dict[str, Any]:
    """Upload a reference and wait for its build."""
    build = api.ok("POST", f"/app/imaged/release/{version}/upload", {"image": image})
    wait_for(lambda: status(api, build) in ("succeeded", "failed"), "the build's end", 180)
    return dict(api.ok("GET", build["links"]["self"]))


def failed(api: Api, version: str, image: str) -> str:
    return str((named(api, version, image)["error"] or {}).get("code"))


def with_docker(api: Api) -> dict[str, Any] | None:
    found = [node for node in api.ok("GET", "/nodes")["items"] if "docker" in node["runtimes"]]
    return found[0] if found else None


def instances(api: Api) -> list[dict[str, Any]]:
    found = api.ok("GET", "/app/boxed/instances")["items"]
    return [api.ok("GET", f"/app/boxed/instances/{one['id']}/details") for one in found]


def containers(engine: DockerEngine, app: dict[str, Any]) -> set[str]:
    return set(engine.docker("ps", "--quiet", "--filter", f"label=omni.app={app['id']}").split())


def open_app(platform: Platform, app: dict[str, Any]) -> httpx.Response:
    return platform.open(app)

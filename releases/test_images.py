"""Images as releases: what is taken for one, what its errors mean, and what a worker may ask an engine."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omni.kernel.errors import InvalidInput
from omni.testing.docker_engine import DockerEngine, missing
from releases import engine_door, image_archive, intake
from releases.contract import IMAGE_REFERENCE
from releases.image_errors import failed_of

DIGEST = "sha256:" + "a" * 64
IMAGE = [{"Config": "c.json", "RepoTags": ["busybox:latest"], "Layers": ["l/layer.tar"]}]


def tar_of(**files: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize(
    ("text", "repository", "tag", "registry"),
    [
        ("nginx", "nginx", "latest", "docker.io"),
        ("team/site:1.2", "team/site", "1.2", "docker.io"),
        ("localhost:5000/a/b", "localhost:5000/a/b", "latest", "localhost:5000"),
        (f"ghcr.io/a/b:1@{DIGEST}", "ghcr.io/a/b", DIGEST, "ghcr.io"),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(text: str, repository: str, tag: str, registry: str) -> None:
    assert image_archive.is_reference(text)
    assert image_archive.split(text) == (repository, tag)
    assert image_archive.registry_of(text) == registry


@pytest.mark.parametrize("text", ["", "UPPER", "a b", "--help", "a:", "a@sha256:12", "../x", "http://x/y", "a" * 600])
def test_what_is_no_reference_is_refused(text: str) -> None:
    assert not image_archive.is_reference(text)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_docker_save_makes_is_told_from_a_folder(pack: Any, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(pack(tar_of(manifest__json=IMAGE)))
    assert image_archive.is_image_archive(upload)
    for other in (tar_of(manifest__json={"name": "a web app's"}), tar_of(app__py=b"x"), b"no archive"):
        upload.write_bytes(pack(other))
        assert not image_archive.is_image_archive(upload)


def test_an_archive_loses_its_names_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(tar_of(manifest__json=IMAGE, repositories={"busybox": {}}, c__json=b"{}"))
    image_archive.without_names(tmp_path / "a", tmp_path / "b", 10_000)
    with tarfile.open(tmp_path / "b") as tar:
        assert sorted(tar.getnames()) == ["c.json", "manifest.json"]
        file = tar.extractfile("manifest.json")
        assert file is not None
        assert json.loads(file.read()) == [{**IMAGE[0], "RepoTags": None}]
    for bad in (tar_of(manifest__json=IMAGE * 2), tar_of(manifest__json=IMAGE, x=b"x" * 20_000)):
        (tmp_path / "a").write_bytes(bad)
        with pytest.raises(ValueError, match=r"one is wanted|more than"):
            image_archive.without_names(tmp_path / "a", tmp_path / "b", 10_000)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("manifest for x:1 not found: manifest unknown", "image_not_found"),
        ("Head https://r/v2/x: unauthorized: authentication required", "registry_refused"),
        ("dial tcp: lookup r.example: no such host", "registry_unreachable"),
        ("write /x: no space left on device", "engine_disk_full"),
        ("dd: No space left on device\nThe command 'dd' returned a non-zero code: 1", "engine_disk_full"),
        ("The command '/bin/sh -c exit 3' returned a non-zero code: 3", "command_failed"),
        ("the --mount option requires BuildKit", "buildkit_needed"),
        ("dockerfile parse error line 1: unknown instruction: FORM", "bad_dockerfile"),
        ("something new", "build_failed"),
    ],
)
def test_an_engines_words_become_a_code_and_stay_in_the_detail(said: str, code: str) -> None:
    failed = failed_of(said, "dockerfile")
    assert failed.code == code
    assert " ".join(said.split()) in failed.detail


@pytest.mark.parametrize(
    ("body", "runtime", "code"),
    [
        (b'{"image": "a:1"}', "process", "image_needs_docker"),
        (b'{"image": "A B"}', "docker", "bad_image_reference"),
        (b'{"image": 3}', "docker", "bad_image_reference"),
        (b'{"image": "a", "x": 1}', "docker", "bad_image_reference"),
        (b"[" * 3000, "docker", "bad_image_reference"),
        (b"{" + b" " * 9000 + b"}", "docker", "bad_image_reference"),
    ],
)
def test_an_upload_that_names_no_image_that_can_run_is_refused(
    body: bytes, runtime: str, code: str, tmp_path: Path
) -> None:
    (tmp_path / "u").write_bytes(body)
    with pytest.raises(InvalidInput) as refusal:
        intake.upload_type(tmp_path / "u", "application/json", runtime)
    assert refusal.value.code == code
    (tmp_path / "u").write_bytes(b'{"image": "team/site:1"}')
    assert intake.upload_type(tmp_path / "u", "application/json", "docker") == IMAGE_REFERENCE


@pytest.mark.parametrize(
    ("method", "target", "passed"),
    [
        ("GET", "/_ping", True),
        ("GET", "/v1.41/version", True),
        ("POST", "/v1.41/build?t=omni-build%3Aapp-1&rm=True&memory=1&memswap=1&cpushares=512", True),
        ("POST", "/v1.41/build?networkmode=host", False),
        ("POST", "/v1.41/build?remote=http%3A%2F%2Fx", False),
        ("POST", "/v1.41/images/create?fromImage=a&tag=1", True),
        ("POST", "/v1.41/images/create?fromSrc=-", False),
        ("GET", "/v1.41/images/a/b:1/json", True),
        ("GET", f"/v1.41/images/{DIGEST}/get", True),
        ("POST", "/v1.41/containers/create", False),
        ("GET", "/v1.41/containers/json", False),
        ("GET", "/v1.41/images/x/../../containers/json", False),
        ("GET", "/v1.41/images/%2e%2e/containers/json", False),
        ("POST", "/v1.41/exec/1/start", False),
        ("GET", "/info", False),
    ],
)
def test_the_door_passes_on_images_and_no_containers(method: str, target: str, passed: bool) -> None:
    assert (engine_door.refusal(method, target) is None) == passed


def test_nothing_hides_behind_a_request() -> None:
    assert engine_door.body_length(b"Host: x\r\nContent-Length: 12") == 12
    for headers in (b"Transfer-Encoding: chunked", b"Content-Length: 1\r\ncontent-length: 9", b"Content-Length: -1"):
        with pytest.raises(ValueError, match=r"length|Length"):
            engine_door.body_length(headers)
    assert engine_door.refusal("GET", "/_ping", b"Host: x\r\nUpgrade: tcp") is not None


@pytest.fixture
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[bytes]]]:
    """A door, and what came through it to an engine that answers everything with `{}` and keeps its connections."""
    folder = Path(tempfile.mkdtemp(prefix="od-"))
    came: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "e"))
    listener.listen()

    def engine() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            came.append(peer.recv(65536))
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            came.append(peer.recv(65536))
            peer.close()

    threading.Thread(target=engine, daemon=True).start()
    made = engine_door._Door(str(folder / "d"), f"unix://{folder / 'e'}")
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield str(folder / "d"), came
    made.shutdown()
    made.server_close()
    listener.close()
    shutil.rmtree(folder)


def test_a_second_request_does_not_follow_the_first_through_the_door(door: tuple[str, list[bytes]]) -> None:
    path, came = door
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Connection: close" in client.recv(65536)
        client.sendall(b"POST /containers/create HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536) == b""
    assert came[0].startswith(b"GET /_ping")
    assert b"create" not in b"".join(came)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_a_build_that_fills_the_engines_disk_says_so() -> None:
    folder = Path(tempfile.mkdtemp(prefix="oe-"))
    engine = DockerEngine(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=True)
    try:
        engine.start("--storage-driver", "vfs")
        engine.import_busybox("busybox:latest")
        tree = folder / "tree"
        tree.mkdir()
        (tree / "Dockerfile").write_text("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=100\n")
        assert job(engine, "dockerfile", str(tree), folder)["failed"]["code"] == "engine_disk_full"
        assert engine.docker("ps", "--all", "--quiet") == ""
        assert len(engine.docker("images", "--all", "--quiet").split()) == 1  # busybox
        assert not (folder / "package.tar").exists()
    finally:
        engine.stop(keep_images=True)
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def job(engine: DockerEngine, kind: str, source: str, folder: Path) -> dict[str, Any]:
    given = {"engine": engine.url, "kind": kind, "source": source, "save_to": str(folder / "package.tar")}
    done = subprocess.run(
        [sys.executable, "-m", "releases.image_job"],
        input=json.dumps({**given, "tag": "omni-build:t", "memory_mb": 128, "disk_mb": 500}).encode(),
        capture_output=True, timeout=120, check=True, env={**os.environ, "DOCKER_CONFIG": str(folder)},
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))

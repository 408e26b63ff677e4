"""Bad input of each kind gets a clear problem, and nothing is lost or left behind."""

from __future__ import annotations

import base64
import hashlib
import io
import socket
import tarfile
from typing import Any

import pytest

from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


@pytest.fixture(scope="module")
def app(platform: Platform) -> dict[str, Any]:
    return platform.api().create("picky")


def _tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_a_wrong_digest_keeps_nothing(platform: Platform, app: dict[str, Any]) -> None:
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    answer = platform.api().upload(
        "picky", "d1", archive(EXAMPLES / "hello"), **{"Content-Digest": f"sha-256=:{wrong}:"}
    )
    assert answer.status_code == 422
    assert answer.json()["code"] == "digest_mismatch"
    assert platform.api()("GET", "/app/picky/release/d1").status_code == 404
    assert list((platform.state / "artifacts" / "incoming").glob("*.part")) == []


def test_a_truncated_upload_keeps_nothing(platform: Platform, app: dict[str, Any]) -> None:
    host, port = platform.members[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        head = (
            f"POST /app/picky/release/t1/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {platform.token}\r\n"
            "Content-Type: application/gzip\r\nContent-Length: 100000\r\n\r\n"
        )
        wire.sendall(head.encode() + b"\x1f\x8b" + b"x" * 5000)
        wire.shutdown(socket.SHUT_WR)
        answer = wire.recv(65536).decode(errors="replace")
    assert answer == "" or " 400 " in answer.splitlines()[0]
    incoming = platform.state / "artifacts" / "incoming"
    wait_for(lambda: list(incoming.glob("*.part")) == [], "the partial file's removal", 15)
    versions = [build["version"] for build in platform.api().ok("GET", "/app/picky/builds?limit=500")["items"]]
    assert "t1" not in versions


@pytest.mark.parametrize(
    ("content_type", "data", "status", "code"),
    [
        ("application/gzip", b"this is no archive", 422, "bad_archive"),
        ("text/plain", b"hello", 415, "unsupported_media_type"),
        ("application/gzip", b"", 400, "empty_upload"),
        ("multipart/form-data; boundary=x", b"--x\r\ngarbage", 422, "file_missing"),
    ],
)
def test_what_is_no_archive_is_refused(
    platform: Platform, app: dict[str, Any], content_type: str, data: bytes, status: int, code: str | None
) -> None:
    answer = platform.api().upload("picky", "n1", data, **{"Content-Type": content_type})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert code is None or answer.json()["code"] == code


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([(tarfile.TarInfo("../evil"), b"x")], "path_traversal"),
        ([(tarfile.TarInfo("/etc/evil"), b"x")], "absolute_path"),
        ([(_link("out", "../../etc/passwd"), b"")], "link_escape"),
    ],
)
def test_a_malicious_archive_fails_its_build_with_its_own_code(
    platform: Platform, app: dict[str, Any], entries: list[tuple[tarfile.TarInfo, bytes]], code: str
) -> None:
    build = platform.api().built("picky", f"m-{code}", _tar(*entries))
    assert build["status"] == "failed"
    assert build["error"]["code"] == code
    assert build["release_id"] is None


def test_nothing_to_build_says_what_was_looked_for(platform: Platform, app: dict[str, Any]) -> None:
    build = platform.api().built("picky", "nothing", archive(EXAMPLES / "none", notes__txt="hi"))
    assert build["status"] == "failed"
    assert "Procfile" in build["error"]["detail"]
    assert "requirements.txt" in build["error"]["detail"]


def test_a_version_keeps_its_bytes(platform: Platform, app: dict[str, Any]) -> None:
    api = platform.api()
    first = archive(EXAMPLES / "hello")
    build = api.built("picky", "v1", first, "?deploy=false")
    assert build["status"] == "succeeded"
    again = platform.api(1).upload("picky", "v1", first, "?deploy=false")
    assert again.status_code == 200
    assert again.json()["id"] == build["id"]
    assert api.upload("picky", "v1", archive(EXAMPLES / "hello", other__txt="1")).status_code == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/app/create", {"name": "Picky"}, 422),
        ("POST", "/app/create", {"name": "picky"}, 409),
        ("POST", "/app/create", {"name": "x", "colour": "red"}, 422),
        ("PATCH", "/app/picky", {"instances": -1}, 422),
        ("PATCH", "/app/picky", {"env": {"LD_PRELOAD": "x"}}, 422),
        ("PATCH", "/app/picky", {"strategy": {"type": "purple"}}, 422),
        ("POST", "/app/picky/scale", {"instances": "many"}, 422),
        ("POST", "/app/picky/release/nope/deploy", None, 404),
        ("POST", "/app/picky/rollback", None, 409),
        ("GET", "/app/nobody/info", None, 404),
        ("GET", "/app/picky/instances/999999/details", None, 404),
        ("GET", "/app/picky/builds/999999", None, 404),
        ("POST", "/app/picky/release/bad%20version/upload", None, 422),
    ],
)
def test_a_bad_call_is_a_problem(
    platform: Platform, app: dict[str, Any], method: str, path: str, body: Any, status: int
) -> None:
    answer = platform.api(1)(method, path, body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]

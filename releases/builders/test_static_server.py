"""The static server: right types, no escape from its directory, ranges, and a stop that lets answers end."""

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).with_name("static_server.py")


@pytest.fixture(autouse=True)
def lease() -> None:
    """No lease is needed here: nothing is written."""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    room = tmp_path_factory.mktemp("site")
    site = room / "site"
    (site / "docs" / "deep").mkdir(parents=True)
    for name, text in {
        "index.html": "<h1>start</h1>", "404.html": "<h1>lost</h1>", "docs/index.html": "docs", "a.js": "js",
        "style.css": "css", "data.json": "{}", "photo.webp": "w", "m.wasm": "w", "noise.bin": "0123456789",
        "a b/ü.txt": "spaced", ".env": "SECRET", "docs/.git": "SECRET", "unknown.zzz": "z", "t.tar.gz": "t",
    }.items():  # fmt: skip
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    (room / "outside.txt").write_text("SECRET")
    (site / "escape").symlink_to(room / "outside.txt")
    (site / "loop").symlink_to("loop")
    env = {**os.environ, "PORT": "0", "HOST": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, str(SERVER), str(site)], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout is not None
        found = re.search(r"port (\d+)", process.stdout.readline())
        assert found
        yield int(found[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest(method, path, skip_host=False)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<h1>start</h1>"),
        ("/index.html?x=1", "text/html; charset=utf-8", b"<h1>start</h1>"),
        ("/docs/", "text/html; charset=utf-8", b"docs"),
        ("/a.js", "text/javascript; charset=utf-8", b"js"),
        ("/style.css", "text/css; charset=utf-8", b"css"),
        ("/data.json", "application/json; charset=utf-8", b"{}"),
        ("/photo.webp", "image/webp", b"w"),
        ("/m.wasm", "application/wasm", b"w"),
        ("/unknown.zzz", "application/octet-stream", b"z"),
        ("/t.tar.gz", "application/gzip", b"t"),
        ("/a%20b/%C3%BC.txt", "text/plain; charset=utf-8", b"spaced"),
    ],
)
def test_files_come_with_their_type(port: int, path: str, kind: str, body: bytes) -> None:
    status, headers, got = ask(port, path)
    assert (status, headers["content-type"], got) == (200, kind, body)
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/docs/deep/", "/../outside.txt", "/docs/../../outside.txt", "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/.env", "/docs/.git", "//etc/passwd", "/escape", "/loop", "/%00", "/%ff", "/a\\..\\x", "/index.html/x",
    ],
)  # fmt: skip
def test_nothing_hidden_or_outside_is_shown(port: int, path: str) -> None:
    status, _, body = ask(port, path)
    assert status == 404
    assert body == b"<h1>lost</h1>"


def test_a_directory_is_completed_with_a_slash_on_this_host(port: int) -> None:
    status, headers, _ = ask(port, "/docs?a=b")
    assert (status, headers["location"]) == (301, "/docs/?a=b")
    status, headers, _ = ask(port, "//docs")
    assert (status, headers["location"]) == (301, "/docs/")


def test_a_known_version_is_not_sent_again(port: int) -> None:
    _, headers, _ = ask(port, "/a.js")
    status, _, body = ask(port, "/a.js", If_None_Match=headers["etag"])
    assert (status, body) == (304, b"")


@pytest.mark.parametrize(
    ("asked", "status", "body"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-999", 206, b"56789"),
        ("bytes=-", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=10-", 416, b"416 Requested Range Not Satisfiable\n"),
        ("bytes=-0", 416, b"416 Requested Range Not Satisfiable\n"),
    ],
)
def test_one_range_is_served(port: int, asked: str, status: int, body: bytes) -> None:
    got, headers, data = ask(port, "/noise.bin", Range=asked)
    assert (got, data) == (status, body)
    assert ("content-range" in headers) == (status != 200)


def test_head_sends_no_body(port: int) -> None:
    status, headers, body = ask(port, "/noise.bin", "HEAD")
    assert (status, headers["content-length"], body) == (200, "10", b"")


def test_other_methods_are_refused(port: int) -> None:
    assert ask(port, "/", "DELETE")[0] == 501

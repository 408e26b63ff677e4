"""What a newcomer is told to do next can be done at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from omni.launch import ready

REVOKED = 10**9


class Node(ThreadingHTTPServer):
    """Ready at once; the admin's token is known to it after `unknown` requests."""

    def __init__(self, unknown: int) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.unknown = unknown
        self.asked = 0


class Answering(BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        known = True
        if self.path == "/cluster/status":
            self.server.asked += 1
            known = self.headers["Authorization"] == "Bearer secret" and self.server.asked > self.server.unknown
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"leader": "here:1"} if known else {}).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(request.param) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def plan_of(node: Node, folder: Path) -> dict[str, Any]:
    member = {"id": "here-1", "netloc": "here:1", "port": 1, "url": f"http://127.0.0.1:{node.server_port}"}
    (folder / "admin.token").write_text("secret")
    return {
        "here": [member], "members": [member], "state": str(folder), "project": str(folder),
        "admin_token_file": str(folder / "admin.token"), "ingress_url": "http://localhost:80",
        "ports": [["127.0.0.1", node.server_port, "ingress"]],
    }  # fmt: skip


def started(plan: dict[str, Any], folder: Path) -> int:
    (folder / "plan.json").write_text(json.dumps(plan))
    return ready.main([str(folder / "plan.json")])


@pytest.mark.parametrize("node", [3], indirect=True)
def test_the_next_step_is_told_when_its_token_is_known(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Followers are ready before a first leader that was only just elected has written anything."""
    assert started(plan_of(node, tmp_path), tmp_path) == 0
    said = capsys.readouterr().out
    assert "Next: upload an example app" in said
    assert "leader  ready" in said


@pytest.mark.parametrize("node", [REVOKED], indirect=True)
def test_an_admin_token_that_was_revoked_delays_no_start_for_long(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ready, "_ADMIN_S", 0.3)
    assert started(plan_of(node, tmp_path), tmp_path) == 0
    assert "Next: upload an example app" in capsys.readouterr().out
    assert node.asked > 1

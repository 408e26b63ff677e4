"""An app that keeps something in a volume, with real processes: over restarts, releases, and to its end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.running_platform import Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]

APP = """
import http.server, os
from pathlib import Path

KEPT = Path(os.environ["OMNI_VOLUME_DATA"]) / "starts"
KEPT.write_text((KEPT.read_text() if KEPT.exists() else "") + os.environ["OMNI_RELEASE"] + ",")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = KEPT.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def test_what_an_app_keeps_outlives_releases_and_goes_only_when_confirmed(platform: Platform) -> None:
    api = platform.api(platform.leader())
    app = api.create("keeper", strategy={"min_ready_s": 0.1}, health_check={"type": "http", "path": "/"})
    home = api.ok("GET", "/nodes")["items"][-1]["name"]
    try:
        made = api.ok("POST", "/app/keeper/volumes", {"name": "data", "path": "/data", "node": home})
        assert (made["node"], made["size_bytes"]) == (home, None)
        for version in ("1", "2"):
            build = api.built(
                "keeper", version, archive(platform.state / "none", Procfile="web: python3 app.py", app__py=APP)
            )
            assert build["status"] == "succeeded", build
            api.healthy("keeper", 1, version)
        wait_for(lambda: platform.open(app).text == "1,2,", "the answer of version 2")
        (instance,) = api.ok("GET", "/app/keeper/instances?status=running")["items"]
        assert instance["node"] == home
        task = api.ok("POST", "/app/keeper/run", {"command": "grep -q 1,2 /data/starts"})
        ends = ("succeeded", "failed", "timed_out", "lost")
        ended = wait_for(lambda: next((t for t in [api.ok("GET", task["links"]["self"])] if t["status"] in ends), None),
                         "the task")  # fmt: skip
        assert (ended["status"], ended["node"]) == ("succeeded", home)
        _there_and_back(platform, app)
        refused = api("DELETE", "/app/keeper")
        assert (refused.status_code, refused.json()["code"]) == (409, "confirmation_needed")
        (directory,) = (platform.state / "instances" / "volumes").iterdir()
        assert (directory / "starts").read_text() == "1,2,2,"
        api.ok("DELETE", "/app/keeper?confirm=keeper")
        wait_for(lambda: not directory.exists(), "the end of the data")
    finally:
        api("DELETE", "/app/keeper?confirm=keeper")


def _there_and_back(platform: Platform, app: Any) -> None:
    """A snapshot of the running app, another start, and back; the app starts once more by itself afterwards."""
    api = platform.api(platform.leader())
    ends = ("succeeded", "failed", "lost")

    def end(made: Any) -> Any:
        look = made["links"]["self"]
        return wait_for(lambda: next((o for o in [api.ok("GET", look)] if o["status"] in ends), None), look)

    taken = end(api.ok("POST", "/app/keeper/volumes/data/snapshots", {"consistency": "live"}))
    assert (taken["status"], taken["files"], taken["content_bytes"]) == ("succeeded", 1, 4), taken
    refused = api("POST", "/app/keeper/volumes/data/restores?confirm=data", {"snapshot": taken["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "volume_in_use")
    (directory,) = (platform.state / "instances" / "volumes").iterdir()
    (directory / "starts").write_text("lost")
    (directory / "more").write_text("lost")
    wish = {"snapshot": taken["id"], "stop": True}
    done = end(api.ok("POST", "/app/keeper/volumes/data/restores?confirm=data", wish))
    assert done["status"] == "succeeded", done
    assert sorted(path.name for path in directory.iterdir()) == ["starts"]
    assert (directory / "starts").read_text() == "1,2,"
    api.ok("POST", "/app/keeper/start")
    api.healthy("keeper", 1, "2")
    wait_for(lambda: platform.open(app).text == "1,2,2,", "the answer after the restore")

"""An app that keeps something in a volume, with real processes: over restarts, releases, and to its end."""

from __future__ import annotations

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
        refused = api("DELETE", "/app/keeper")
        assert (refused.status_code, refused.json()["code"]) == (409, "confirmation_needed")
        (directory,) = (platform.state / "instances" / "volumes").iterdir()
        assert (directory / "starts").read_text() == "1,2,"
        api.ok("DELETE", "/app/keeper?confirm=keeper")
        wait_for(lambda: not directory.exists(), "the end of the data")
    finally:
        api("DELETE", "/app/keeper?confirm=keeper")

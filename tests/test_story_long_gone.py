"""An instance that died an hour ago still answers: its lines and how it ended, by API, command line and console."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser import Operator, chromium
from tests.running_platform import PROJECT, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow, pytest.mark.long]
HOUR = dt.timedelta(hours=1, minutes=1)

MORTAL = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
for number in range(300):
    print(f"line {number}", flush=True)
class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            print("out of ideas", file=sys.stderr, flush=True)
            os._exit(3)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answering).serve_forever()
"""


def command(platform: Platform, *words: str) -> str:
    """What `omni` prints."""
    environment = {**os.environ, "OMNI_URL": platform.members[0], "OMNI_TOKEN": platform.token}
    done = subprocess.run([sys.executable, "-m", "cli", *words], cwd=PROJECT, env=environment, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.returncode} {done.stdout} {done.stderr}"
    return done.stdout


def age(platform: Platform, instance: int) -> None:
    """Put everything that is known of an instance back by an hour: rows, lines, figures. Its agent has let go of it."""
    seconds = HOUR.total_seconds()
    with contextlib.closing(sqlite3.connect(platform.state / "omni.sqlite3", timeout=30)) as rows:
        times = ("created_at", "started_at", "healthy_at", "healthy_since", "finished_at")
        sets = ", ".join(f"{name} = strftime('%Y-%m-%d %H:%M:%f', {name}, '-{seconds:.0f} seconds')" for name in times)
        assert rows.execute(f"UPDATE instances_instance SET {sets} WHERE id = ?", [instance]).rowcount == 1  # noqa: S608
        rows.commit()
    with contextlib.closing(sqlite3.connect(platform.state / "telemetry.sqlite3", timeout=30)) as rows:
        for table in ("instances_logline", "instances_sample"):
            rows.execute(f"UPDATE {table} SET at_us = at_us - ? WHERE instance_id = ?", [int(seconds * 1e6), instance])  # noqa: S608
        rows.commit()


@pytest.fixture(scope="module")
def dead(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Crashed, replaced by a new release, and an hour older by now."""
    api, folder = platform.api(), tmp_path_factory.mktemp("mortal")
    api.create("mortal", memory_mb=64, restart_policy="never")
    api.built("mortal", "1", archive(folder, Procfile="web: exec python -u app.py\n", app__py=MORTAL))
    app = api.healthy("mortal", 1, "1")
    (first,) = api.ok("GET", "/app/mortal/instances")["items"]
    platform.answers(app)
    with contextlib.suppress(httpx.HTTPError):
        platform.open(app, "/die")
    details = f"/app/mortal/instances/{first['id']}/details"
    wait_for(lambda: (api.ok("GET", details)["last_exit"] or {}).get("code") == 3, "its end", 60)
    api.built("mortal", "2", archive(folder, Procfile="web: exec python -u app.py\n", app__py=MORTAL))
    api.healthy("mortal", 1, "2")
    gone = wait_for(lambda: (found := api.ok("GET", details))["finished_at"] and found, "its being gone", 60)
    lines = f"/app/mortal/instances/{first['id']}/logs?q=out of ideas"
    wait_for(lambda: api.ok("GET", lines)["items"], "its last line", 30)
    age(platform, first["id"])
    return {"app": app["id"], "id": first["id"], "details": details, "was": gone}


def test_by_the_api(platform: Platform, dead: dict[str, Any]) -> None:
    for member in range(3):
        api, now = platform.api(member), dt.datetime.now(dt.UTC)
        found = api.ok("GET", dead["details"])
        assert now - dt.datetime.fromisoformat(found["finished_at"]) > HOUR - dt.timedelta(minutes=1)
        assert (found["last_exit"]["code"], found["last_exit"]["lines"][-1]) == (3, "out of ideas")
        logs = f"/app/mortal/instances/{dead['id']}/logs"
        assert [one["line"] for one in api.ok("GET", f"{logs}?tail=2")["items"]] == ["line 299", "out of ideas"]
        until = (now - dt.timedelta(minutes=50)).isoformat().replace("+00:00", "Z")
        old = api.ok("GET", f"{logs}?until={until}&limit=500")["items"]
        assert [one["line"] for one in old][:300] == [f"line {number}" for number in range(300)]
        assert api.ok("GET", f"{logs}?since={until}")["items"] == []
        merged = api.ok("GET", f"/app/mortal/logs?until={until}&q=out of ideas")["items"]
        assert [(one["instance_id"], one["stream"]) for one in merged] == [(dead["id"], "stderr")]
        listed = api.ok("GET", "/app/mortal/instances?status=all")["items"]
        assert dead["id"] in [one["id"] for one in listed]


def test_by_the_command_line(platform: Platform, dead: dict[str, Any]) -> None:
    number = str(dead["id"])
    assert number not in [line.split()[0] for line in command(platform, "ps", "mortal").splitlines()]
    assert number in [line.split()[0] for line in command(platform, "ps", "mortal", "--all").splitlines()]
    shown = command(platform, "ps", "mortal", "--instance", number)
    assert "code 3" in shown
    assert "out of ideas" in shown
    assert command(platform, "logs", "mortal", "-i", number, "-n", "1").rstrip().endswith("out of ideas")
    found = json.loads(command(platform, "ps", "mortal", "-i", number, "--json"))
    assert found["last_exit"]["code"] == 3


def test_in_the_console(platform: Platform, dead: dict[str, Any], tmp_path: Path) -> None:
    with chromium() as browser:
        operator = Operator(browser, platform.members[0])
        operator.log_in(platform)
        operator.open(f"/admin/app/{dead['app']}/instances/{dead['id']}/")
        text = operator.page.locator("main").inner_text()
        assert "It ended" in text
        assert "1 h" in text, text
        assert "out of ideas" in operator.page.locator("#instance-log").inner_text()
        assert "out of ideas" in operator.page.get_by_role("region", name="Last lines", exact=True).inner_text()
        operator.open(f"/admin/app/{dead['app']}/logs/?instance={dead['id']}")
        operator.page.get_by_text("out of ideas").first.wait_for()
        assert operator.troubles == []

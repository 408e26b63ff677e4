"""A running platform is backed up, lost, and put back on an empty machine: its app is served and its secret is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.running_platform import EXAMPLES, PROJECT, Api, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

SECRET = "s3cret-that-only-the-app-may-read"


def manage(platform: Platform, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    config = platform.state.parent / "config.json"
    environment = {**os.environ, **platform.environment, "OMNI_CONFIG": str(config), "OMNI_STATE": str(platform.state)}
    return subprocess.run(
        [sys.executable, "manage.py", *map(str, arguments)],
        cwd=PROJECT, env=environment, text=True, capture_output=True, timeout=120,
    )  # fmt: skip


def greeting(platform: Platform, app: dict[str, Any]) -> bool:
    return platform.open(app).status_code == 200


def secret_of(platform: Platform, instance: int) -> str:
    """What the app's own process finds in its environment."""
    text = Path(f"/proc/{platform.app_process(instance).pid}/environ").read_bytes().decode()
    return dict(part.partition("=")[::2] for part in text.split("\0")).get("KEY", "")


def secrets(platform: Platform, api: Api) -> list[str]:
    running = api.ok("GET", "/app/kept/instances?status=running")["items"]
    try:
        return [secret_of(platform, item["id"]) for item in running]
    except (ValueError, OSError, psutil.Error):  # one of them is not there, or not any more
        return []


@pytest.mark.long
def test_what_was_backed_up_runs_again_on_an_empty_machine(tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("correct horse battery staple\n")
    first = Platform.prepared(tmp_path / "first")
    first.start()
    backup = tmp_path / "backup"
    try:
        api = first.api()
        app = api.create("kept", instances=2, env={"KEY": {"value": SECRET, "secret": True}})
        assert api.built("kept", "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
        api.healthy("kept", 2, "1")
        wait_for(lambda: greeting(first, app), "the first answer", 20)
        made = manage(first, "cluster_backup", backup, "--passphrase-file", passphrase)
        assert made.returncode == 0, made.stderr
        refused = manage(first, "cluster_restore", backup, "--replace")
        assert "Stop the platform first" in refused.stderr
        token = first.token
    finally:
        assert first.stop() == 0

    with zipfile.ZipFile(backup) as file:
        assert not any(SECRET.encode() in file.read(name) for name in file.namelist())
        index = json.loads(file.read("manifest.json"))["write_index"]
    second = Platform(tmp_path / "second" / "state", first.config)
    second.state.parent.mkdir()
    (second.state.parent / "config.json").write_text(json.dumps(first.config))
    done = manage(second, "cluster_restore", backup, "--passphrase-file", passphrase)
    assert done.returncode == 0, done.stderr
    assert "Every row and every artifact reads as the backup does" in done.stdout

    second.start()
    try:
        assert second.token == token
        api = second.api()
        api.healthy("kept", 2, "1")
        wait_for(lambda: greeting(second, app), "the app's answer", 30)
        # Rows came back as they were; what they say is only true again once the agents have reported.
        wait_for(lambda: secrets(second, api) == [SECRET, SECRET], "both instances with their secret", 30)
        events = api.ok("GET", f"/events?since={index}&limit=200")["items"]
        (restored,) = [event for event in events if event["kind"] == "cluster.restored"]
        assert restored["epoch"] > 1_000
        assert all(event["epoch"] >= restored["epoch"] for event in events)
        assert api.ended(api.ok("POST", "/app/kept/scale", {"instances": 3}))["status"] == "succeeded"
        fresh = max(item["id"] for item in api.ok("GET", "/app/kept/instances")["items"])
        assert fresh > 1_000_000, "no id of the lost platform is given again"
    finally:
        assert second.stop() == 0

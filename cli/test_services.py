"""`omni services`, `omni alerts`, `omni silences`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Omni
from cli.fake_api import FakeApi


def ahead(text: str) -> float:
    """Hours from now."""
    return (dt.datetime.fromisoformat(text) - dt.datetime.now(dt.UTC)).total_seconds() / 3600


def test_services_are_listed_shown_and_their_checks_told(omni: Omni) -> None:
    assert omni("services", "list").out.splitlines()[1].split() == [
        "db", "unhealthy", "2026", "critical", "ops", "refused",
    ]  # fmt: skip
    shown = omni("services", "show", "db").out
    assert "type=tcp host=10.0.0.5 port=3306" in shown
    assert shown.splitlines()[-1].split() == ["n1", "failing", "-", "2027", "refused"]
    assert omni("services", "checks", "db").out.splitlines()[1].split() == [
        "2026",
        "n1",
        "failing",
        "3",
        "-",
        "refused",
    ]
    assert omni("services", "list", "--json").json["items"][0]["name"] == "db"


@pytest.mark.parametrize(
    ("words", "check"),
    [
        (["tcp://10.0.0.5:3306"], {"type": "tcp", "host": "10.0.0.5", "port": 3306}),
        (["http://10.0.0.5/health?x=1"], {"type": "http", "url": "http://10.0.0.5/health?x=1"}),
        (["tls://mail.example"], {"type": "tls", "host": "mail.example", "port": 443}),
        (["heartbeat"], {"type": "heartbeat"}),
        (["exec", "test", "-f", "/x y"], {"type": "exec", "command": ["test", "-f", "/x y"]}),
    ],
)
def test_a_check_is_written_as_an_address(omni: Omni, api: FakeApi, words: list[str], check: dict[str, Any]) -> None:
    assert omni("services", "add", "db", *words).code == 0
    assert api.writes()[-1].json == {"name": "db", "check": check}


@pytest.mark.parametrize("words", [["ftp://x"], ["tcp://x"], ["tcp://x:99999"], ["exec"], ["heartbeat", "now"]])
def test_what_is_no_check_is_wrong_usage(omni: Omni, api: FakeApi, words: list[str]) -> None:
    assert omni("services", "add", "db", *words).code == 2
    assert not api.writes()


def test_a_service_is_added_with_its_options_changed_and_removed(omni: Omni, api: FakeApi, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    options = ["--severity", "critical", "--interval", "2", "--needs", "dns", "--needs", "net", "--call", "http://x/",
               "--secret-from", str(secret), "--max-per-hour", "5", "--fail-days", "3", "--no-verify"]  # fmt: skip
    assert omni("services", "add", *options, "site", "tls://x:8443").code == 0
    assert api.writes()[-1].json == {
        "name": "site", "check": {"type": "tls", "host": "x", "port": 8443, "fail_days": 3.0, "verify": False},
        "severity": "critical", "interval_s": 2.0, "depends_on": ["dns", "net"],
        "remedy": {"type": "webhook", "url": "http://x/", "secret": "hush", "max_per_hour": 5},
    }  # fmt: skip
    assert omni("services", "edit", "db", "--run-task", "shop", "python mend.py --all", "--contains", "ok").code == 0
    task = {"type": "run_task", "app": "shop", "command": ["python", "mend.py", "--all"]}
    assert api.writes()[-1].json == {"check": {"contains": "ok"}, "remedy": task}
    assert omni("services", "edit", "db", "--check", "heartbeat", "--no-remedy", "--no-needs").code == 0
    assert api.writes()[-1].json == {"check": {"type": "heartbeat"}, "depends_on": [], "remedy": None}
    assert omni("services", "edit", "db", "--restart-app", "a", "--call", "http://x/").code == 2
    assert omni("services", "edit", "db").code == 2
    assert omni("services", "remove", "-y", "db").out.strip() == "db is watched no more"
    assert (api.writes()[-1].method, api.writes()[-1].path) == ("DELETE", "/services/db")


def test_maintenance_is_switched_with_an_end_or_without(omni: Omni, api: FakeApi) -> None:
    assert "under maintenance until" in omni("services", "maintenance", "--for", "2h", "db", "on").out
    assert 1.9 < ahead(api.writes()[-1].json["maintenance_until"]) < 2.1
    assert omni("services", "maintenance", "db", "off").out.strip() == "db is watched again"
    assert omni("services", "maintenance", "--for", "soon", "db", "on").code == 2


def test_alerts_are_listed_and_acknowledged_and_silences_made_and_ended(omni: Omni, api: FakeApi) -> None:
    assert omni("alerts", "list").out.splitlines()[1].split() == [
        "3", "db", "critical", "open", "2026", "-", "1", "refused",
    ]  # fmt: skip
    assert api.calls[-1].query["status"] == "active"
    assert "acknowledged by token:me" in omni("alerts", "ack", "--note", "on it", "3").out
    assert (api.writes()[-1].path, api.writes()[-1].json) == ("/alerts/3/ack", {"note": "on it"})
    assert omni("silences", "add", "--for", "30m", "--reason", "moving", "db-*").out.startswith("silence 5: db-* until")
    assert 0.4 < ahead(api.writes()[-1].json["ends_at"]) < 0.6
    assert omni("silences", "list").out.splitlines()[1].split()[:2] == ["5", "db"]
    assert omni("silences", "end", "5").code == 0
    assert (api.writes()[-1].method, api.writes()[-1].path) == ("DELETE", "/silences/5")

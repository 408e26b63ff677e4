"""Each command against the fake API: the calls it makes, what it prints, its exit code."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.conftest import Omni
from cli.fake_api import FakeApi

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(home: Path) -> Path:
    folder = home / "My Shop"
    folder.mkdir()
    (folder / "Procfile").write_text("web: ./run\n")
    (folder / "notes.log").write_text("x")
    (folder / ".gitignore").write_text("*.log\n")
    return folder


def test_up_creates_uploads_follows_and_prints_the_address(omni: Omni, api: FakeApi, folder: Path) -> None:
    result = omni("up", str(folder), "--version", "v1")
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == "my-shop v1 is up: http://my-shop.localhost:8080"
    assert [line.split()[1] for line in result.out.splitlines()[1:5]] == ["one", "two", "three", "four"]
    assert "\x1b" not in result.out
    assert "1 of 1 missing" in result.out
    create, upload = api.writes()
    assert create.json == {"name": "my-shop"}
    assert upload.path == "/app/my-shop/release/v1/upload"
    assert upload.headers["content-type"] == "application/gzip"
    digest = base64.b64encode(api.sha256("v1")).decode()
    assert upload.headers["content-digest"] == f"sha-256=:{digest}:"
    assert api.names_in("v1") == {"Procfile", ".gitignore"}
    again = omni("up", str(folder), "--version", "v2", "--json")
    assert again.json["name"] == "my-shop"
    assert len([call for call in api.writes() if call.path == "/app/create"]) == 1


def test_up_works_where_no_streams_pass(omni: Omni, api: FakeApi, folder: Path) -> None:
    api.streams = False
    assert [line.split()[1] for line in omni("up", str(folder)).out.splitlines()[1:5]] == [
        "one",
        "two",
        "three",
        "four",
    ]


def test_a_failed_build_says_why_and_exits_1(omni: Omni, api: FakeApi, folder: Path) -> None:
    api.build_ends = "failed"
    result = omni("up", str(folder))
    assert result.code == 1
    assert "no Procfile found" in result.err
    assert "next: omni builds my-shop --log 7" in result.err


def test_a_failed_deployment_exits_3(omni: Omni, api: FakeApi, folder: Path) -> None:
    api.deployment_ends = "failed"
    assert omni("up", str(folder)).code == 3


def test_a_folder_without_files_or_name_is_wrong_usage(omni: Omni, home: Path, api: FakeApi) -> None:
    (home / "empty").mkdir()
    assert omni("up", "empty").code == 2
    (home / "123").mkdir()
    (home / "123" / "a").write_text("")
    assert omni("up", "123").code == 2
    assert api.writes() == []


@pytest.mark.parametrize(
    "trouble", [(503, {"Retry-After": "0"}), (502, {}), (504, {}), (429, {"Retry-After": "0"}), "cut"]
)
def test_a_write_is_repeated_under_the_same_key(omni: Omni, api: FakeApi, trouble) -> None:
    api.troubles = [trouble, trouble]
    assert omni("apps", "create", "hello").code == 0
    calls = api.writes()
    assert len(calls) == 3
    assert len({call.headers["idempotency-key"] for call in calls}) == 1
    assert len({call.body for call in calls}) == 1


def test_a_dead_member_is_passed_over(omni: Omni, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_URL", f"127.0.0.1:1,{api.url}")
    assert omni("apps", "create", "hello").code == 0


def test_problems_are_shown_with_detail_and_next(omni: Omni) -> None:
    result = omni("apps", "info", "nope")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines() == ["error: no app nope", "next: omni apps list"]
    as_json = omni("apps", "info", "nope", "--json")
    assert json.loads(as_json.err)["code"] == "app_not_found"


def test_wrong_usage_exits_2(omni: Omni, api: FakeApi) -> None:
    for argv in (["nope"], ["scale", "x", "many"], ["env", "set", "x", "novalue"], ["up", "--instances", "-1"]):
        assert omni(*argv).code == 2, argv
    assert omni("rollback", "x", "--to", "v1", "--release", "3").code == 2
    assert api.writes() == []


def test_lists_follow_their_pages(omni: Omni, api: FakeApi) -> None:
    for name in ("a1", "a2", "a3", "a4", "a5"):
        omni("apps", "create", name)
    assert [app["name"] for app in omni("apps", "list", "--json").json["items"]] == ["a1", "a2", "a3", "a4", "a5"]
    assert [line.split()[1] for line in omni("apps", "list").out.splitlines()] == ["NAME", "a1", "a2", "a3", "a4", "a5"]
    assert len(omni("apps", "list", "--limit", "3", "--json").json["items"]) == 3


def test_scale_names_process_types(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    assert omni("scale", "web", "web=2", "worker=3").code == 0
    assert api.apps["web"]["processes"] == {"web": 2, "worker": 3}
    for wrong in (["worker="], ["=2"], ["worker=two"], ["1", "web=2"]):
        assert omni("scale", "web", *wrong).code == 2


def test_scale_restart_rollback_deploy_and_delete(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    assert omni("scale", "web", "4", "--wait").out.strip() == "web runs 4"
    assert omni("restart", "web", "--wait").code == 0
    assert omni("rollback", "web", "--release", "2").code == 0
    assert api.writes()[-1].json == {"release": 2}
    assert omni("deploy", "web", "v1", "--dry-run", "--json").json["status"] == "pending"
    assert api.writes()[-1].query == {"dry_run": "true"}
    assert omni("apps", "delete", "web", "--yes").code == 0
    assert api.apps == {}


def test_env_shows_sets_and_removes(omni: Omni, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    omni("apps", "create", "web")
    assert omni("env", "get", "web").out == "A=1\nPASSWORD=(secret)\n"
    assert omni("env", "get", "web", "A").out == "1\n"
    assert omni("env", "get", "web", "B").code == 1
    assert omni("env", "set", "web", "B=x=y", "C=").code == 0
    assert api.writes()[-1].json == {"env": {"B": "x=y", "C": ""}}
    assert omni("env", "set", "web", "--secret", "K=s").code == 0
    assert api.writes()[-1].json == {"env": {"K": {"value": "s", "secret": True}}}
    assert omni("env", "unset", "web", "A").code == 0
    assert api.writes()[-1].json == {"env": {"A": None}}


def test_logs_are_clean_and_followed_across_a_cut(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    result = omni("logs", "web")
    assert result.out.splitlines()[1] == "15:00:02.000 #5 two \\x1b[31mred"
    followed = omni("logs", "web", "-f", "--json").out.splitlines()
    assert [json.loads(line)["cursor"] for line in followed] == ["1", "2", "3", "4"]
    omni("logs", "web", "--instance", "5", "--stream", "stderr", "-q", "two")
    assert api.calls[-1].path == "/app/web/instances/5/logs"
    assert api.calls[-1].query == {"tail": "100", "stream": "stderr", "q": "two"}


def test_events_are_shown_oldest_first_and_followed(omni: Omni, api: FakeApi) -> None:
    result = omni("events", "--app", "web", "--kind", "app.scaled")
    assert result.out.splitlines() == [
        '15:00:01.000 7.0 app.scaled app 3 token:me: scale {"instances": [1, 2]}',
        "15:00:02.000 8.0 app.scaled app 3 token:me: scale",
    ]
    assert api.calls[-1].query["app"] == "web"
    followed = omni("events", "-f", "--since", "5", "--kind", "app.scaled", "--json").out.splitlines()
    assert [json.loads(line)["cursor"] for line in followed] == ["1", "2", "3", "4"]
    streams = [call for call in api.calls if "event-stream" in call.headers.get("accept", "")]
    chosen = [(c.query.get("since"), c.query.get("kind"), c.headers.get("last-event-id")) for c in streams]
    assert chosen == [("5", "app.scaled", None), (None, "app.scaled", "2")]


def test_ps_shows_dashes_for_what_nobody_measured_and_exits_3_when_unhealthy(omni: Omni, api: FakeApi) -> None:
    omni("apps", "create", "web")
    keys = ("id", "slot", "version", "node", "address", "cpu_percent", "memory_bytes", "restarts", "uptime_s")
    api.instances = [{**dict.fromkeys(keys), "status": "running", "health": "healthy"}]
    result = omni("ps", "web")
    assert result.code == 0
    assert result.out.splitlines()[1].split() == ["-", "-", "-", "running", "healthy", *["-"] * 7]
    api.instances[0]["health"] = "unhealthy"
    assert omni("ps", "web", "--json").code == 3


def test_cluster_shows_and_changes_who_leads_and_who_is_in(omni: Omni, api: FakeApi) -> None:
    api.members = [{"id": "127.0.0.1-8000", "address": "127.0.0.1:8000", "role": "leader", "reachable": True}]
    shown = omni("cluster", "status")
    assert shown.code == 0, shown.err
    assert "127.0.0.1-8000" in shown.out
    assert omni("cluster", "transfer", "--to", "127.0.0.1-8001").out.startswith("127.0.0.1:8001 leads")
    assert omni("cluster", "add", "10.0.0.9", "8000", "--json").json["id"] == "10.0.0.9-8000"
    assert omni("cluster", "remove", "10.0.0.9-8000").code == 0
    assert [(call.method, call.path) for call in api.writes()] == [
        ("POST", "/cluster/transfer"),
        ("POST", "/cluster/members"),
        ("DELETE", "/cluster/members/10.0.0.9-8000"),
    ]


def test_status_and_doctor_exit_3_when_something_is_down(
    omni: Omni, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.members = [{"id": "m", "address": "127.0.0.1:8000", "role": "leader", "reachable": True}]
    assert omni("status").code == 0
    assert omni("doctor").code == 0
    api.members[0]["reachable"] = False
    result = omni("status", "--json")
    assert (result.code, result.json["healthy"]) == (3, False)
    monkeypatch.setenv("OMNI_URL", f"{api.url},127.0.0.1:1")
    result = omni("doctor")
    assert result.code == 3
    assert "127.0.0.1:1" in result.out


def test_login_keeps_the_token_for_its_owner_only(
    omni: Omni, api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OMNI_URL")
    monkeypatch.delenv("OMNI_TOKEN")
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    assert omni("login", api.url, "--token-stdin").code == 1, "an empty token is refused"
    with (tmp_path / "token").open("w+") as typed:
        typed.write("omni_test\n")
        typed.seek(0)
        monkeypatch.setattr("sys.stdin", typed)
        assert omni("login", api.url, "--token-stdin").code == 0
    file = tmp_path / "config" / "omni" / "config.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert omni("apps", "create", "hello").code == 0
    assert "omni_test" not in omni("config").out


def test_a_token_beside_a_local_platform_goes_nowhere_else(home: Path, omni: Omni, monkeypatch) -> None:
    (home / "var").mkdir()
    (home / "var" / "admin.token").write_text("omni_admin_secret_of_this_machine\n")
    monkeypatch.delenv("OMNI_TOKEN")
    monkeypatch.delenv("OMNI_URL")
    assert omni("config", "--json").json["token_source"].endswith("admin.token")
    monkeypatch.setenv("OMNI_URL", "https://elsewhere.example")
    assert omni("config", "--json").json["token_source"] == "none"


def test_without_a_platform_the_next_step_is_named_soon(omni: Omni, monkeypatch) -> None:
    monkeypatch.delenv("OMNI_URL")
    monkeypatch.setattr("cli.settings.LOCAL_URLS", ("http://127.0.0.1:1",))
    started = time.monotonic()
    result = omni("apps", "list")
    assert (result.code, "./start.sh" in result.err) == (1, True)
    assert time.monotonic() - started < 2


def test_completion_and_help_need_no_server_and_little_time(home: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", "-m", "cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=30)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"django", "rich", "httpx", "http.client", "pathspec", "tarfile", "agent", "ssl"}
    env["_OMNI_COMPLETE"] = "bash_complete"
    env |= {"COMP_WORDS": "omni ro", "COMP_CWORD": "1"}
    entry = [sys.executable, "-c", "from cli.main import main; main()"]
    assert "rollback" in subprocess.run(entry, capture_output=True, text=True, env=env, timeout=30).stdout

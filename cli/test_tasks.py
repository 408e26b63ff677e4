"""`omni run`, `omni tasks` and `omni cron`."""

from __future__ import annotations

import pytest

from cli.conftest import Omni
from cli.fake_api import FakeApi


@pytest.fixture(autouse=True)
def shop(omni: Omni) -> None:
    omni("apps", "create", "shop")


@pytest.mark.slow
def test_run_sends_the_line_shows_the_log_and_says_how_it_ended(omni: Omni, api: FakeApi) -> None:
    result = omni("run", "-e", "A=b=c", "shop", "python", "x.py", "--all", "two words")
    assert result.code == 0, result.err
    assert [line.split()[1] for line in result.out.splitlines()] == ["one", "two", "three", "four"]
    assert api.writes()[-1].json == {"command": "python x.py --all 'two words'", "env": {"A": "b=c"}}
    api.task |= {"status": "failed", "reason": "exited with code 3", "exit_code": 3}
    failed = omni("run", "shop", "exit 3")
    assert failed.code == 1
    assert failed.err.splitlines() == ["error: task 4 failed: exited with code 3", "next: omni tasks show shop 4"]
    assert omni("run", "-e", "nothing", "shop", "x").code == 2


def test_run_detached_names_the_task(omni: Omni, api: FakeApi) -> None:
    assert "task 4" in omni("run", "-d", "--timeout", "5", "shop", "x").out
    assert api.writes()[-1].json == {"command": "x", "timeout_s": 5.0}
    assert omni("run", "-d", "shop", "x", "--json").code == 0


def test_tasks_are_listed_shown_logged_and_cancelled(omni: Omni, api: FakeApi) -> None:
    assert omni("tasks", "list", "shop").out.splitlines()[1].split()[:4] == ["4", "run", "succeeded", "0"]
    assert "exited with code 0" in omni("tasks", "show", "shop", "4").out
    assert len(omni("tasks", "log", "shop", "4").out.splitlines()) == 4
    assert omni("tasks", "cancel", "shop", "4").code == 0
    assert api.writes()[-1].path == "/app/shop/tasks/4/cancel"


def test_cron_entries_are_added_listed_paused_run_and_removed(omni: Omni, api: FakeApi) -> None:
    added = omni("cron", "add", "-z", "Europe/Berlin", "shop", "tidy", "30 2 * * *", "python", "tidy.py", "--all")
    assert added.out.strip() == "tidy is due next at 2026"
    assert api.writes()[-1].json == {
        "name": "tidy", "schedule": "30 2 * * *", "command": "python tidy.py --all", "time_zone": "Europe/Berlin",
    }  # fmt: skip
    assert omni("cron", "list", "shop").out.splitlines()[1].split()[:2] == ["tidy", "@daily"]
    assert omni("cron", "pause", "shop", "tidy").out.strip() == "tidy is paused"
    assert api.writes()[-1].json == {"paused": True}
    assert omni("cron", "resume", "shop", "tidy").code == 0
    assert omni("cron", "run", "shop", "tidy").out.strip() == "started, task 4: due"
    assert omni("cron", "runs", "shop", "tidy").out.splitlines()[1].split()[1:4] == ["started", "4", "running"]
    assert omni("cron", "remove", "shop", "tidy").code == 0
    assert (api.writes()[-1].method, api.writes()[-1].path) == ("DELETE", "/app/shop/cron/tidy")

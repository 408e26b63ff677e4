"""Cron entries over HTTP, with a clock that is put forward and leaders that die."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from apps.models import App
from consensus import gate
from instances.conftest import Platform, call
from instances.cron import clockwork, services
from instances.cron.models import CronEntry, CronRun
from instances.models import Instance, Task
from instances.tasks.runner import Runner
from omni.kernel import clock
from omni.kernel.context import system
from omni.testing.factories import make_app, make_org, make_token

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


@pytest.fixture
def shop(platform: Platform) -> App:
    app = make_app(platform.org, "shop", memory_mb=64, strategy={"min_ready_s": 0})
    platform.deploy(app, "v1")
    platform.settle()
    return app


def entry(platform: Platform, app: App, **fields: Any) -> dict[str, Any]:
    body = {"name": "tidy", "schedule": "* * * * *", "command": "python tidy.py", **fields}
    answer = platform.call("POST", f"/app/{app.pk}/cron", body)
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


def a_due_time_comes(platform: Platform) -> None:
    at = CronEntry.objects.get().next_due_at
    assert at is not None
    platform.later((at - clock.now()).total_seconds() + 0.5)


def runs(platform: Platform, app: App) -> list[dict[str, Any]]:
    return list(platform.call("GET", f"/app/{app.pk}/cron/tidy/runs").json()["items"])


def ends(platform: Platform, status: str = "stopped") -> None:
    """Every task's process ends with success."""
    Runner().tick()
    for row in Instance.objects.filter(process_type="task", status__in=("placed", "running", "starting")):
        exit_ = {"at": "2026-01-01T00:00:00Z", "code": 0, "signal": None, "lines": []}
        platform.report(row, status, last_exit=exit_)
    Runner().tick()


def test_a_due_time_is_started_once_whoever_leads(platform: Platform, shop: App) -> None:
    entry(platform, shop)
    clockwork.tick()
    assert not CronRun.objects.exists()
    a_due_time_comes(platform)
    seen = CronEntry.objects.get().next_due_at
    for _ in range(3):
        clockwork.tick()  # it remembers nothing: each is another leader
    (run,) = runs(platform, shop)
    assert (run["status"], run["task_status"]) == ("started", "queued")
    # a deposed leader that still has it as due finds it claimed
    pk = CronEntry.objects.get().pk
    assert seen is not None
    assert gate.run(lambda tx: services.come_due(tx, pk, seen), actor=system("test"), cause="test")[0] is None
    assert Task.objects.get().kind == "cron"
    ends(platform)
    assert runs(platform, shop)[0]["task_status"] == "succeeded"


def test_a_clock_that_is_put_back_starts_nothing_again(platform: Platform, shop: App) -> None:
    entry(platform, shop)
    a_due_time_comes(platform)
    at = CronEntry.objects.get().next_due_at
    clockwork.tick()
    with gate.maintenance("test"):
        CronEntry.objects.update(next_due_at=at)
    clockwork.tick()
    assert (len(runs(platform, shop)), Task.objects.count()) == (1, 1)
    assert CronEntry.objects.get().next_due_at > at


def test_overlap_skip_says_what_still_runs(platform: Platform, shop: App) -> None:
    entry(platform, shop)
    for _ in range(2):
        a_due_time_comes(platform)
        clockwork.tick()
    newest, first = runs(platform, shop)
    assert (first["status"], newest["status"]) == ("started", "skipped")
    assert f"task {first['task_id']}" in newest["reason"]


def test_overlap_allow_starts_beside(platform: Platform, shop: App) -> None:
    entry(platform, shop, overlap="allow")
    for _ in range(2):
        a_due_time_comes(platform)
        clockwork.tick()
    assert [run["status"] for run in runs(platform, shop)] == ["started", "started"]
    assert Task.objects.count() == 2


def test_overlap_replace_ends_the_one_before_first(platform: Platform, shop: App) -> None:
    entry(platform, shop, overlap="replace")
    a_due_time_comes(platform)
    clockwork.tick()
    Runner().tick()
    a_due_time_comes(platform)
    clockwork.tick()
    assert runs(platform, shop)[0]["status"] == "waiting"
    assert Task.objects.count() == 1
    for _ in range(2):
        Runner().tick()
    row = Instance.objects.get(process_type="task")
    assert row.desired == "stop"
    platform.report(row, "stopped")
    Runner().tick()
    clockwork.tick()
    assert [run["status"] for run in runs(platform, shop)] == ["started", "started"]
    assert [task.status for task in Task.objects.order_by("id")] == ["cancelled", "queued"]


def test_what_nobody_could_start_in_time_is_missed_and_counted(platform: Platform, shop: App) -> None:
    entry(platform, shop, schedule="*/2 * * * *", start_deadline_s=30)
    first = CronEntry.objects.get().next_due_at
    assert first is not None
    platform.later(600)
    passed = int((clock.now() - first).total_seconds() // 120) + 1
    clockwork.tick()
    found = runs(platform, shop)
    missed = [run for run in found if run["status"] == "missed"]
    started = [run for run in found if run["status"] == "started"]
    assert sum(run["missed"] for run in missed) + len(started) == passed
    assert len(started) <= 1
    at = CronEntry.objects.get().next_due_at
    assert at is not None
    assert at > clock.now()


def test_a_paused_entry_and_a_stopped_app_start_nothing(platform: Platform, shop: App) -> None:
    entry(platform, shop)
    paused = platform.call("PATCH", f"/app/{shop.pk}/cron/tidy", {"paused": True}).json()
    assert (paused["next_due_at"], paused["upcoming"]) == (None, [])
    platform.later(120)
    clockwork.tick()
    platform.call("PATCH", f"/app/{shop.pk}/cron/tidy", {"paused": False})
    clockwork.tick()
    assert runs(platform, shop) == []
    platform.call("POST", f"/app/{shop.pk}/stop")
    a_due_time_comes(platform)
    clockwork.tick()
    assert [run["status"] for run in runs(platform, shop)] == ["skipped"]


def test_an_app_without_a_release_says_so_in_the_history(platform: Platform) -> None:
    app = make_app(platform.org, "empty")
    entry(platform, app)
    a_due_time_comes(platform)
    clockwork.tick()
    (run,) = runs(platform, app)
    assert run["status"] == "refused"
    assert "Nothing is deployed" in run["reason"]


def test_entries_are_made_changed_run_and_removed(platform: Platform, shop: App) -> None:
    made = entry(platform, shop, schedule="30 2 * * *", time_zone="Europe/Berlin", env={"K": "hush"})
    assert len(made["upcoming"]) == 5
    assert (made["next_due_at"], made["env_keys"]) == (made["upcoming"][0], ["K"])
    changed = platform.call("PATCH", f"/app/{shop.pk}/cron/tidy", {"schedule": "@hourly", "process_type": "web"})
    assert (changed.json()["command"], changed.json()["process_type"]) == (None, "web")
    stale = platform.call("PATCH", f"/app/{shop.pk}/cron/tidy", {"paused": True}, **{"If-Match": '"1"'})
    assert stale.status_code == 412
    asked = platform.call("POST", f"/app/{shop.pk}/cron/tidy/run")
    assert (asked.status_code, asked.json()["status"]) == (202, "started")
    assert Task.objects.get().command == "./run"
    assert platform.call("DELETE", f"/app/{shop.pk}/cron/tidy").status_code == 204
    assert platform.call("GET", f"/app/{shop.pk}/cron").json()["items"] == []
    assert Task.objects.count() == 1


def test_bad_entries_are_refused(platform: Platform, shop: App) -> None:
    entry(platform, shop)
    good = {"name": "other", "schedule": "* * * * *", "command": "x"}
    for change, status in (({"name": "tidy"}, 409), ({"schedule": "61 * * * *"}, 422), ({"time_zone": "X/Y"}, 422),
                           ({"command": None}, 422), ({"overlap": "maybe"}, 422), ({"name": "UP"}, 422)):  # fmt: skip
        body = {name: value for name, value in {**good, **change}.items() if value is not None}
        assert platform.call("POST", f"/app/{shop.pk}/cron", body).status_code == status, change
    dry = platform.call("POST", f"/app/{shop.pk}/cron?dry_run=true", good).json()
    assert len(dry["plan"]["due"]) == 5
    other = make_token(make_org())
    assert call(other, "GET", f"/app/{shop.pk}/cron/tidy").status_code == 404
    viewer = make_token(platform.org, role="viewer")
    assert call(viewer, "POST", f"/app/{shop.pk}/cron", good).json()["code"] == "missing_scope"


def test_a_deleted_app_takes_its_entries_along_and_old_history_is_forgotten(platform: Platform, shop: App) -> None:
    entry(platform, shop)
    a_due_time_comes(platform)
    clockwork.tick()
    ends(platform)
    assert clockwork.forget_ended(clock.now() - dt.timedelta(hours=1), 10) == 0
    assert clockwork.forget_ended(clock.now() + dt.timedelta(hours=1), 10) == 1
    platform.call("DELETE", f"/app/{shop.pk}")
    for _ in range(6):
        platform.tick()
        platform.agents_act()
        platform.later(2)
    assert not App.objects.filter(pk=shop.pk).exists()
    assert not CronEntry.objects.exists()

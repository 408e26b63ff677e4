"""Tasks and release commands, with agents played by hand and leaders that die."""

from __future__ import annotations

from typing import Any

import pytest

from apps.models import App
from instances import nodes
from instances.conftest import Platform, call, node_token
from instances.models import Instance, Node, Task
from instances.tasks.runner import Runner
from omni.testing.factories import make_app, make_org, make_token

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]
MIGRATING = {"web": "./web", "release": "./migrate"}


@pytest.fixture
def shop(platform: Platform) -> App:
    app = make_app(platform.org, "shop", memory_mb=64, strategy={"min_ready_s": 0}, env={"A": "1"})
    platform.deploy(app, "v1")
    platform.settle()
    return app


def work(times: int = 3) -> None:
    """The leader's loop over tasks; a new one each time, for none remembers anything."""
    for _ in range(times):
        Runner().tick()


def ends(platform: Platform, task_id: int, code: int | None = 0) -> None:
    """The task's process ends with that code."""
    row = Instance.objects.get(task_id=task_id)
    exit_ = {"at": "2026-01-01T00:00:00Z", "code": code, "signal": None, "lines": ["said it"]}
    platform.report(row, "stopped" if code == 0 else "failed", detail=f"exited with code {code}", last_exit=exit_)
    work()


def starts(platform: Platform, task_id: int) -> None:
    platform.report(Instance.objects.get(task_id=task_id), "running", "healthy", started_at="2026-01-01T00:00:00Z")
    work()


def run(platform: Platform, app: App, **fields: Any) -> dict[str, Any]:
    answer = platform.call("POST", f"/app/{app.pk}/run", {"command": "python task.py", **fields})
    assert answer.status_code == 202, answer.content
    return dict(answer.json())


def shown(platform: Platform, app: App, task_id: int) -> dict[str, Any]:
    return dict(platform.call("GET", f"/app/{app.pk}/tasks/{task_id}").json())


def test_a_task_runs_once_and_keeps_its_exit_code_and_its_last_lines(platform: Platform, shop: App) -> None:
    task = run(platform, shop, env={"K": "hush"}, memory_mb=32, timeout_s=60)
    assert (task["status"], task["env_keys"]) == ("queued", ["K"])
    work()
    (assigned,) = _assigned(platform)
    assert (assigned["command"], assigned["once"], assigned["restart_policy"]) == ("python task.py", True, "never")
    assert (assigned["env"], assigned["memory_mb"]) == ({"A": "1", "K": "hush"}, 32)
    starts(platform, task["id"])
    assert shown(platform, shop, task["id"])["status"] == "running"
    ends(platform, task["id"], 7)
    ended = shown(platform, shop, task["id"])
    assert (ended["status"], ended["exit_code"], ended["error"]["code"]) == ("failed", 7, "exit_code")
    assert ended["started_at"] is not None
    assert ended["evidence"]["last_exit"]["lines"] == ["said it"]
    platform.settle()
    work()
    assert Instance.objects.filter(task_id=task["id"]).count() == 1
    assert "hush" not in str(ended)


def _assigned(platform: Platform) -> list[dict[str, Any]]:
    return [item for name in platform.node_names
            for item in call(node_token(name), "GET", "/agent/assignments").json()["instances"]
            if item["process_type"] == "task"]  # fmt: skip


def test_the_apps_own_instances_are_none_of_a_tasks_business(platform: Platform, shop: App) -> None:
    task = run(platform, shop)
    work()
    starts(platform, task["id"])
    platform.settle()
    info = platform.call("GET", f"/app/{shop.pk}/info").json()
    assert (info["status"], info["instances_summary"]["running"]) == ("running", 1)
    assert len(platform.call("GET", f"/app/{shop.pk}/instances").json()["items"]) == 1
    assert platform.call("GET", f"/app/{shop.pk}/metrics").json()["instances"]["running"] == 1
    instance_id = shown(platform, shop, task["id"])["instance_id"]
    for verb in ("restart", "stop"):
        refused = platform.call("POST", f"/app/{shop.pk}/instances/{instance_id}/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, "instance_of_task")


def test_a_command_that_ended_between_two_looks_has_a_beginning(platform: Platform, shop: App) -> None:
    task = run(platform, shop)
    work()
    row = Instance.objects.get(task_id=task["id"])
    exit_ = {"at": "2026-01-01T00:00:01Z", "code": 0, "signal": None, "lines": []}
    platform.report(row, "stopped", last_exit=exit_, started_at="2026-01-01T00:00:00Z")
    work()
    ended = shown(platform, shop, task["id"])
    assert (ended["status"], ended["started_at"]) == ("succeeded", "2026-01-01T00:00:00.000000Z")


def test_a_cancelled_task_is_stopped_and_says_so(platform: Platform, shop: App) -> None:
    queued, running = run(platform, shop), run(platform, shop)
    platform.call("POST", f"/app/{shop.pk}/tasks/{queued['id']}/cancel")
    work(1)
    assert shown(platform, shop, queued["id"])["status"] == "cancelled"
    starts(platform, running["id"])
    cancel = platform.call("POST", f"/app/{shop.pk}/tasks/{running['id']}/cancel")
    assert (cancel.status_code, cancel.json()["stopping_for"]) == (202, "cancelled")
    work()
    row = Instance.objects.get(task_id=running["id"])
    assert (row.desired, shown(platform, shop, running["id"])["status"]) == ("stop", "stopping")
    platform.report(row, "stopped", detail="stopped")
    work()
    assert shown(platform, shop, running["id"])["status"] == "cancelled"
    again = platform.call("POST", f"/app/{shop.pk}/tasks/{running['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "task_ended")


def test_a_task_that_takes_too_long_is_ended(platform: Platform, shop: App) -> None:
    task = run(platform, shop, timeout_s=30)
    work()
    starts(platform, task["id"])
    platform.later(31)
    work()
    row = Instance.objects.get(task_id=task["id"])
    assert row.desired == "stop"
    platform.report(row, "stopped", detail="stopped")
    work()
    ended = shown(platform, shop, task["id"])
    assert (ended["status"], ended["error"]["code"]) == ("timed_out", "timed_out")


def test_a_task_on_a_lost_node_is_lost_and_not_run_again(platform: Platform, shop: App, in_gate: Any) -> None:
    task = run(platform, shop)
    work()
    starts(platform, task["id"])
    node = shown(platform, shop, task["id"])["node"]
    gone = Node.objects.get(name=node)
    in_gate(lambda tx: nodes.declare_lost(tx, gone.pk, "silent"))
    work()
    ended = shown(platform, shop, task["id"])
    assert (ended["status"], ended["error"]["code"]) == ("lost", "node_lost")
    assert Instance.objects.filter(process_type="task").count() == 1


def test_a_task_that_fits_nowhere_says_why_and_fails_in_time(platform: Platform, shop: App) -> None:
    task = run(platform, shop, memory_mb=100_000)
    work()
    waiting = shown(platform, shop, task["id"])
    assert waiting["status"] == "queued"
    assert "100000 MB" in waiting["reason"]
    platform.later(601)
    work()
    assert shown(platform, shop, task["id"])["error"]["code"] == "no_room"


def test_what_cannot_be_run_is_refused(platform: Platform, shop: App) -> None:
    empty = make_app(platform.org, "empty")
    assert platform.call("POST", f"/app/{empty.pk}/run", {"command": "x"}).json()["code"] == "nothing_deployed"
    for body in ({}, {"command": "a", "process_type": "web"}, {"command": "a\nb"}, {"process_type": "nope"},
                 {"command": "x", "env": {"PORT": "1"}}, {"command": "x", "env": {"A": None}}):  # fmt: skip
        assert platform.call("POST", f"/app/{shop.pk}/run", body).status_code == 422, body
    dry = platform.call("POST", f"/app/{shop.pk}/run?dry_run=true", {"process_type": "web"}).json()
    assert dry["plan"]["actions"][0]["node"] in platform.node_names
    assert not Task.objects.exists()


def test_rights_and_other_orgs(platform: Platform, shop: App) -> None:
    task = run(platform, shop)
    other, viewer = make_token(make_org()), make_token(platform.org, role="viewer")
    for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/cancel")):
        assert call(other, method, f"/app/{shop.pk}/tasks/{task['id']}{path}").status_code == 404
    assert call(viewer, "GET", f"/app/{shop.pk}/tasks").json()["items"][0]["id"] == task["id"]
    assert call(viewer, "POST", f"/app/{shop.pk}/run", {"command": "x"}).json()["code"] == "missing_scope"


def test_the_same_key_runs_it_once(platform: Platform, shop: App) -> None:
    for _ in range(2):
        platform.call("POST", f"/app/{shop.pk}/run", {"command": "x"}, **{"Idempotency-Key": "once"})
    assert Task.objects.count() == 1


def test_a_deleted_app_ends_its_tasks_first(platform: Platform, shop: App) -> None:
    task = run(platform, shop)
    work()
    starts(platform, task["id"])
    platform.call("DELETE", f"/app/{shop.pk}")
    for _ in range(8):
        work()
        platform.tick()
        platform.agents_act()
        platform.later(2)
    assert not App.objects.filter(pk=shop.pk).exists()
    assert not Task.objects.exists()


def preparing(platform: Platform, app: App, version: str = "v2") -> Task:
    platform.deploy(app, version, process_types=MIGRATING)
    platform.tick()
    work()
    return Task.objects.get(kind="release", pk=platform.deployment(app).release_task_id)


def versions(app: App) -> list[str]:
    rows = Instance.objects.filter(app=app, task__isnull=True, desired="run")
    return sorted(rows.values_list("release__version", flat=True))


def test_a_release_command_comes_before_anything_of_its_release(platform: Platform, shop: App) -> None:
    task = preparing(platform, shop)
    platform.settle()
    assert (task.command, versions(shop)) == ("./migrate", ["v1"])
    asked = platform.call("GET", f"/app/{shop.pk}/deployments/{platform.deployment(shop).pk}").json()
    assert (asked["status"], asked["phase"], asked["release_task_id"]) == ("pending", "preparing", task.pk)
    starts(platform, task.pk)
    platform.tick()
    assert versions(shop) == ["v1"]
    ends(platform, task.pk)
    platform.settle()
    assert versions(shop) == ["v2"]
    assert platform.deployment(shop).status == "succeeded"
    assert Task.objects.count() == 1


def test_a_failing_release_command_stops_the_deployment_with_its_evidence(platform: Platform, shop: App) -> None:
    task = preparing(platform, shop)
    ends(platform, task.pk, 3)
    platform.settle()
    last = platform.deployment(shop)
    assert (last.status, last.error_code) == ("reverted", "release_command_failed")
    assert "exited with code 3" in last.error_detail
    assert last.evidence["last_exit"]["lines"] == ["said it"]
    assert versions(shop) == ["v1"]
    shop.refresh_from_db()
    assert (shop.desired_release, shop.status) == (1, "running")


def test_the_first_release_can_fail_by_its_command_too(platform: Platform) -> None:
    app = make_app(platform.org, "first", memory_mb=64, strategy={"min_ready_s": 0})
    task = preparing(platform, app, "v1")
    ends(platform, task.pk, 1)
    platform.settle()
    assert (platform.deployment(app).status, versions(app)) == ("failed", [])


def test_leaders_that_die_on_the_way_run_it_once(platform: Platform, shop: App) -> None:
    platform.deploy(shop, "v2", process_types=MIGRATING)
    for _ in range(3):
        platform.restart_leader()
        platform.tick()
        work()
    task = Task.objects.get()
    starts(platform, task.pk)
    platform.restart_leader()
    platform.tick()
    ends(platform, task.pk)
    platform.restart_leader()
    platform.settle()
    assert (Task.objects.count(), Instance.objects.filter(process_type="task").count()) == (1, 1)
    assert versions(shop) == ["v2"]


def test_what_runs_is_kept_and_scaled_while_the_command_runs(platform: Platform, shop: App) -> None:
    task = preparing(platform, shop)
    platform.call("POST", f"/app/{shop.pk}/scale", {"instances": 3})
    platform.settle()
    work()
    assert versions(shop) == ["v1"] * 3
    assert Task.objects.get().status == "running"
    ends(platform, task.pk)
    platform.settle()
    assert versions(shop) == ["v2"] * 3
    assert Task.objects.count() == 1


def test_a_cancelled_deployment_ends_its_command(platform: Platform, shop: App) -> None:
    task = preparing(platform, shop)
    starts(platform, task.pk)
    platform.call("POST", f"/app/{shop.pk}/deployments/{platform.deployment(shop).pk}/cancel")
    work()
    row = Instance.objects.get(task=task)
    assert row.desired == "stop"
    platform.report(row, "stopped", detail="stopped")
    work()
    platform.settle()
    assert Task.objects.get().status == "cancelled"
    assert versions(shop) == ["v1"]


def test_going_back_restarting_and_scaling_run_no_command(platform: Platform, shop: App) -> None:
    ends(platform, preparing(platform, shop).pk)
    platform.settle()
    for path, body in (("restart", None), ("scale", {"instances": 2}), ("rollback", {"version": "v1"}),
                       ("rollback", {"version": "v2"})):  # fmt: skip
        assert platform.call("POST", f"/app/{shop.pk}/{path}", body).status_code == 202
        platform.settle()
    assert Task.objects.count() == 1
    platform.call("PATCH", f"/app/{shop.pk}/config", {"env": {"NEW": "1"}})
    platform.tick()
    assert Task.objects.count() == 2

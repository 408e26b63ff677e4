"""Sessions of rows: who may ask for one, who hears of it, how it ends, and what is told of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.conf import settings

from consensus import gate
from instances.conftest import Platform, call, node_token
from instances.exec.models import ExecSession
from instances.exec.sweep import Sweep
from instances.models import Instance
from omni.kernel import clock
from omni.kernel.models import Event
from omni.testing.factories import make_org, make_token

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


@pytest.fixture
def instance(platform: Platform) -> Instance:
    app = platform.app(name="shop")
    platform.deploy(app, "v2")
    platform.settle()
    return Instance.objects.select_related("node").get(app=app, status="running")


def ask(platform: Platform, instance: Instance, token: str = "", **fields: Any) -> Any:
    path = f"/app/{instance.app_id}/instances/{instance.pk}/exec"
    return call(token or platform.token, "POST", path, {"command": ["env"], **fields})


def attach(made: dict[str, Any], node: str, ticket: str = "") -> Any:
    found = ticket or made["url"].rpartition("ticket=")[2]
    return call(node_token(node), "POST", f"/agent/exec/{made['id']}/attach", {"ticket": found})


def tell(node: str, **seen: Any) -> None:
    answer = call(node_token(node), "POST", "/agent/report", {"node": node, "incarnation": 1, "sessions": [seen]})
    assert answer.status_code == 200, answer.content


def listed(node: str) -> list[dict[str, Any]]:
    return list(call(node_token(node), "GET", "/agent/assignments").json()["sessions"])


def home(instance: Instance) -> str:
    assert instance.node is not None
    return instance.node.name


def test_from_asking_to_its_end_every_step_is_told_but_nothing_that_was_said(
    platform: Platform, instance: Instance
) -> None:
    node, member = home(instance), settings.CONFIG.me.id
    made = ask(platform, instance, tty=True, columns=100, rows=30).json()
    assert (made["status"], made["command"], made["node"]) == ("open", ["env"], node)
    assert listed(node) == []  # nothing runs before somebody is there
    assert attach(made, member).status_code == 200
    (order,) = listed(node)
    assert (order["instance_id"], order["argv"], order["columns"], order["running"]) == (
        instance.pk, ["env"], 100, False,
    )  # fmt: skip
    assert order["urls"][0] == settings.CONFIG.me.url
    tell(node, id=made["id"])
    assert listed(node)[0]["running"] is True
    tell(node, id=made["id"], ended=True, code=3, reason="exited")
    assert listed(node) == []
    tell(node, id=made["id"], ended=True, code=0, reason="exited")  # late
    (shown,) = platform.call("GET", made["links"]["self"]).json()["items"]
    assert (shown["status"], shown["exit_code"], shown["reason"]) == ("ended", 3, "exited")
    kinds = Event.objects.filter(kind__startswith="exec.").order_by("key")
    assert [event.kind for event in kinds] == ["exec.created", "exec.attached", "exec.started", "exec.ended"]
    last = kinds[3].change
    assert (last["command"], last["exit_code"], last["instance"]) == ("env", 3, instance.pk)
    assert last["by"] == made["created_by"]
    assert last["duration_s"] is not None


def test_what_a_swarm_runs_elsewhere_takes_no_command_and_the_answer_says_where_it_is(
    platform: Platform, instance: Instance
) -> None:
    with gate.maintenance("test"):
        Instance.objects.filter(pk=instance.pk).update(handle={"service": "x", "place": "worker-2"})
    answer = ask(platform, instance)
    assert (answer.status_code, answer.json()["code"]) == (409, "instance_elsewhere")
    assert "worker-2" in answer.json()["detail"]
    assert not ExecSession.objects.exists()


def test_it_has_a_scope_of_its_own_and_another_orgs_instance_does_not_exist(
    platform: Platform, instance: Instance
) -> None:
    for fields, status in (
        ({"role": "viewer"}, 403),
        ({"role": "developer", "scopes": ["instances:write", "instances:read"]}, 403),
        ({"role": "developer", "scopes": ["exec", "instances:read"]}, 201),
        ({"role": "developer"}, 201),
    ):
        assert ask(platform, instance, make_token(platform.org, **fields)).status_code == status, fields
    assert ask(platform, instance, make_token(make_org("other"))).status_code == 404


def test_a_ticket_is_good_once_for_who_has_it_and_not_for_long(platform: Platform, instance: Instance) -> None:
    made = ask(platform, instance).json()
    assert attach(made, home(instance), "guessed").status_code == 404
    assert attach(made, home(instance)).status_code == 200
    again = attach(made, home(instance))
    assert (again.status_code, again.json()["code"]) == (409, "ticket_used")
    late = ask(platform, instance).json()
    platform.later(31)
    assert attach(late, home(instance)).json()["code"] == "ticket_used"
    path = f"/agent/exec/{made['id']}/attach"
    assert call(platform.token, "POST", path, {"ticket": "x"}).status_code == 403


def test_only_running_instances_take_one_and_a_node_so_many(
    platform: Platform, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = settings.CONFIG.limits.model_copy(update={"exec_sessions": 2})
    monkeypatch.setattr(settings, "CONFIG", settings.CONFIG.model_copy(update={"limits": limits}))
    assert [ask(platform, instance).status_code for _ in range(2)] == [201, 201]
    assert ask(platform, instance).json()["code"] == "too_many_sessions"
    for bad in ("", [], [""], ["a\0"], [1], ["x"] * 300):
        assert ask(platform, instance, command=bad).status_code == 422 or bad == "", bad
    with gate.maintenance("test"):
        Instance.objects.filter(pk=instance.pk).update(status="starting")
    assert ask(platform, instance).json()["code"] == "instance_not_running"


def test_another_nodes_agent_has_no_say_and_is_not_let_in(platform: Platform, instance: Instance) -> None:
    node, member = home(instance), settings.CONFIG.me.id
    other = next(name for name in platform.node_names if name != node)
    made = ask(platform, instance).json()
    attach(made, member)
    tell(other, id=made["id"], ended=True, code=0, reason="exited")
    assert ExecSession.objects.get().status == "attached"
    assert listed(other) == []
    for name, status in ((other, 404), (node, 204)):
        assert call(node_token(name), "GET", f"/agent/exec/{made['id']}").status_code == status


@pytest.mark.parametrize(("steps", "status", "reason"), [
    (0, "expired", "nobody_came"), (1, "lost", "agent_lost"), (2, "lost", "agent_lost"),
])  # fmt: skip
def test_what_nobody_ends_the_leader_ends(
    platform: Platform, instance: Instance, steps: int, status: str, reason: str
) -> None:
    made, sweep = ask(platform, instance).json(), Sweep()
    if steps > 0:
        attach(made, settings.CONFIG.me.id)
    if steps > 1:
        tell(home(instance), id=made["id"])
    sweep.tick()
    assert ExecSession.objects.get().ended_at is None
    with gate.maintenance("test"):
        ExecSession.objects.update(end_by=clock.now())
    sweep._look_at = 0.0
    sweep.tick()
    row = ExecSession.objects.get()
    assert (row.status, row.reason) == (status, reason)
    assert listed(home(instance)) == []


def test_with_its_instance_a_session_ends_and_is_forgotten_in_the_end(platform: Platform, instance: Instance) -> None:
    made, sweep = ask(platform, instance).json(), Sweep()
    attach(made, settings.CONFIG.me.id)
    with gate.maintenance("test"):
        Instance.objects.filter(pk=instance.pk).update(status="lost")
    sweep.tick()
    assert ExecSession.objects.get().reason == "instance_ended"
    with gate.maintenance("test"):
        ExecSession.objects.update(ended_at=ExecSession.objects.get().created_at - dt.timedelta(days=8))
    Sweep().tick()
    assert not ExecSession.objects.exists()

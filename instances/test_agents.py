"""What agents report and read: order, idempotency, rights."""

from __future__ import annotations

import pytest
from django.conf import settings

from agent.plain import from_json
from agent.protocol import Assignments
from agent.routing import Routes
from agent.sync import readable
from apps.models import ConfigRevision
from consensus import gate
from instances import assignments, heartbeats, nodes
from instances.conftest import FACTS, Platform, call, node_token
from instances.models import Instance, Node
from instances.test_deployments import deployed
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_instance, make_org, make_token

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


def report(node: str, **fields):
    return call(node_token(node), "POST", "/agent/report", {"node": node, "incarnation": 1, **fields})


def observed(row: Instance, seq: int, status: str, health: str = "unknown", **fields):
    return {"id": row.pk, "seq": seq, "status": status, "health": health, **fields}


@pytest.fixture
def placed(platform: Platform) -> Instance:
    app = platform.app()
    return make_instance(app, node=Node.objects.all()[0], status="placed", health="unknown", on_node=True)


def test_a_heartbeat_writes_no_row_and_enters_no_gate(platform, django_assert_max_num_queries):
    (node, *_) = platform.node_names
    report(node)
    with django_assert_max_num_queries(1):  # the write index, at most 20 times a second
        answer = report(node)
    assert answer.status_code == 200
    assert answer.json()["want_facts"] is False
    assert heartbeats.own().ages()[node] < 5
    assert Event.objects.count() == 0


def test_the_first_report_of_a_member_registers_its_node(fence):
    name = settings.CONFIG.members[0].id
    assert report(name).json()["want_facts"] is True
    assert Node.objects.get().status == "joining"
    assert report(name, facts=FACTS).json()["want_facts"] is False
    node = Node.objects.get()
    assert (node.status, node.memory_mb, node.facts["runtimes"]) == ("ready", 2048, ["process"])
    assert report(name).json()["want_facts"] is False


def test_every_node_that_runs_an_ingress_is_shown_as_such(platform):
    first, second, third = platform.node_names[:3]
    for name in (first, second):
        assert report(name, ingress=True).status_code == 200
    assert report(third, ingress=False).status_code == 200

    def shown() -> dict[str, bool]:
        return {node["name"]: node["ingress"] for node in platform.call("GET", "/nodes").json()["items"]}

    assert shown() == {first: True, second: True, third: False}
    report(second, ingress=False)
    assert shown() == {first: True, second: False, third: False}


def test_strangers_and_foreign_tokens_are_refused(platform):
    (first, second, *_) = platform.node_names
    stranger = call(
        node_token("10.9.9.9-1"), "POST", "/agent/report", {"node": "10.9.9.9-1", "incarnation": 1, "gone": [1]}
    )
    assert (stranger.status_code, stranger.json()["code"]) == (403, "unknown_node")
    body = {"node": second, "incarnation": 1, "instances": []}
    foreign = call(node_token(first), "POST", "/agent/report", body)
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_node")
    assert call(platform.token, "GET", "/agent/assignments").status_code == 403
    assert call(make_token(make_org(), role="owner"), "GET", "/agent/routes").status_code == 403


def test_a_follower_takes_no_heartbeat(platform, lease):
    lease.lose("127.0.0.1:8000")
    answer = report(platform.node_names[1])
    assert (answer.status_code, answer.json()["code"]) == (503, "no_leader")


def test_a_report_moves_the_row_and_a_repeated_one_changes_nothing(platform, placed):
    node = placed.node.name
    body = observed(placed, 3, "running", "healthy", address="127.0.0.1:20001", started_at="2026-01-01T00:00:00Z",
                    restarts=1, handle={"pid": 4})  # fmt: skip
    answer = report(node, instances=[body])
    assert answer.json()["known"] == [placed.pk]
    placed.refresh_from_db()
    assert (placed.status, placed.health, placed.address, placed.restarts) == (
        "running",
        "healthy",
        "127.0.0.1:20001",
        1,
    )
    assert placed.healthy_at is not None
    before, revision = Event.objects.count(), placed.revision
    assert report(node, instances=[body]).json()["known"] == [placed.pk]
    placed.refresh_from_db()
    assert (Event.objects.count(), placed.revision) == (before, revision)


def test_a_late_report_changes_nothing(platform, placed):
    report(placed.node.name, instances=[observed(placed, 5, "running", "healthy")])
    report(placed.node.name, instances=[observed(placed, 4, "starting", "starting")])
    placed.refresh_from_db()
    assert placed.status == "running"


def test_reports_of_an_earlier_agent_process_are_refused(platform, placed):
    node = placed.node.name
    report(node, incarnation=7, facts=FACTS)
    answer = report(node, incarnation=6, instances=[observed(placed, 9, "running")])
    assert (answer.status_code, answer.json()["code"]) == (409, "stale_incarnation")
    assert report(node, incarnation=8).json()["want_facts"] is True


def test_nothing_moves_back_from_an_end(platform, placed):
    node = placed.node.name
    report(node, instances=[observed(placed, 1, "failed", detail="exited with code 1")])
    assert report(node, instances=[observed(placed, 2, "running", "healthy")]).json()["known"] == [placed.pk]
    placed.refresh_from_db()
    assert placed.status == "failed"
    assert placed.finished_at is not None


def test_unknown_instances_and_those_of_other_nodes_are_named(platform, placed):
    other = platform.node_names[1]
    answer = report(other, instances=[observed(placed, 1, "running"), {"id": 999, "seq": 1, "status": "running"}])
    assert answer.json()["unknown"] == [placed.pk, 999]
    placed.refresh_from_db()
    assert placed.status == "placed"


@pytest.mark.slow
def test_history_is_bounded(platform, placed):
    for seq in range(1, 130):
        status, health = ("running", "healthy") if seq % 2 else ("running", "unhealthy")
        report(placed.node.name, instances=[observed(placed, seq, status, health)])
    placed.refresh_from_db()
    assert len(placed.history) == 50


def test_a_malformed_report_says_where(platform):
    answer = report(platform.node_names[0], instances=[{"id": "x"}])
    assert answer.status_code == 400
    assert "instances[0].id" in answer.json()["detail"]


def test_assignments_say_everything_an_agent_needs_and_the_environment_only_there(
    platform, django_assert_max_num_queries
):
    app = make_app(platform.org, env={"GREETING": "xyzzy"}, memory_mb=64)
    row = make_instance(app, node=Node.objects.all()[0], status="placed", on_node=True)
    make_instance(app, node=Node.objects.all()[1], status="placed", on_node=True)
    with django_assert_max_num_queries(6):
        answer = call(node_token(row.node.name), "GET", "/agent/assignments")
    found = from_json(Assignments, answer.json())
    (one,) = found.instances
    assert (one.id, one.app, one.command, one.env) == (row.pk, app.name, "./run", {"GREETING": "xyzzy"})
    assert one.release.package == row.release.package_id
    assert one.health_check.type == "tcp"
    assert int(answer["Omni-Index"]) == found.index
    again = call(node_token(row.node.name), "GET", "/agent/assignments", **{"If-None-Match": answer["ETag"]})
    assert again.status_code == 304
    shown = platform.call("GET", f"/app/{app.pk}/instances/{row.pk}/details").content.decode()
    assert "xyzzy" not in shown


def test_an_environment_that_nobody_can_open_stops_no_other_app(platform, placed):
    other = make_instance(make_app(env={"A": "1"}), node=placed.node, status="running", on_node=True)
    with gate.maintenance("as after a master key was lost"):
        ConfigRevision.objects.filter(pk=placed.release.config_id).update(env="sealed with a key that is gone")
    assignments._environment.cache_clear()
    answer = call(node_token(placed.node.name), "GET", "/agent/assignments").json()
    found, unreadable = readable(answer)
    assert [entry.id for entry in found.instances] == [other.pk]
    assert list(unreadable) == [placed.pk], "the agent leaves it as it is"
    assignments._environment.cache_clear()


def test_an_ended_instance_is_listed_for_removal_until_it_is_gone(platform, placed):
    node = placed.node.name
    report(node, instances=[observed(placed, 1, "failed")])
    (one,) = call(node_token(node), "GET", "/agent/assignments").json()["instances"]
    assert one["desired"] == "remove"
    report(node, gone=[placed.pk])
    assert call(node_token(node), "GET", "/agent/assignments").json()["instances"] == []


def test_routes_name_healthy_wanted_instances_only(platform, in_gate):
    app = deployed(platform, 2)
    routes = from_json(Routes, call(node_token(platform.node_names[0]), "GET", "/agent/routes").json())
    (host,) = [h for h in routes.hosts if h.app_id == app.pk]
    assert host.host == f"{app.hostname}.{settings.CONFIG.domain}"
    assert len(host.targets) == 2
    row = Instance.objects.filter(app=app).first()
    platform.report(row, "running", "unhealthy", address=row.address)
    tag = ""
    answer = call(node_token(platform.node_names[0]), "GET", "/agent/routes")
    (host,) = answer.json()["hosts"]
    assert [t["instance_id"] for t in host["targets"]] == [Instance.objects.filter(app=app).last().pk]
    tag = answer["ETag"]
    platform.tick()
    again = call(node_token(platform.node_names[0]), "GET", "/agent/routes", **{"If-None-Match": tag})
    assert again.status_code == 304


@pytest.mark.slow
def test_an_app_whose_only_nodes_are_lost_is_served_by_them_until_another_instance_is_healthy(platform, in_gate):
    """A node that fell silent may well run what it ran: it was once taken out, and the app answered 503 meanwhile."""
    app = deployed(platform, 1)
    row = Instance.objects.get(app=app)
    others = [name for name in platform.node_names if name != row.node.name]
    asked = node_token(others[0])

    def behind():
        (host,) = [h for h in call(asked, "GET", "/agent/routes").json()["hosts"] if h["app_id"] == app.pk]
        return [target["instance_id"] for target in host["targets"]]

    platform.ages[row.node.name] = 30.0
    in_gate(lambda tx: nodes.declare_lost(tx, row.node_id, "silent"))
    row.refresh_from_db()
    assert row.status == "lost"
    assert behind() == [row.pk]
    platform.tick()
    successor = Instance.objects.filter(app=app, status__in=("pending", "placed")).get()
    assert behind() == [row.pk], "its successor takes no requests yet"
    platform.report(successor, "running", "healthy", address="127.0.0.1:20077")
    assert behind() == [successor.pk]
    platform.report(successor, "running", "unhealthy", address="127.0.0.1:20077")
    assert behind() == [row.pk]
    in_gate(lambda tx: nodes.declare_back(tx, row.node_id))
    platform.report(successor, "running", "healthy", address="127.0.0.1:20077")
    platform.report(successor, "running", "unhealthy", address="127.0.0.1:20077")
    assert behind() == [], "its port may be another's now"


def test_a_change_of_routes_is_seen_behind_any_number_of_other_events(platform, in_gate):
    """What can change a route makes the table anew. It was once looked for among the last thousand events only."""
    app = deployed(platform, 1)
    asked = node_token(platform.node_names[0])
    call(asked, "GET", "/agent/routes")

    def many(tx):
        for number in range(1_001):
            tx.record("instance.placed", "instance", number, org_id=app.org_id, app_id=app.pk, change={})

    platform.report(Instance.objects.get(app=app), "running", "unhealthy")
    in_gate(many)
    (host,) = [h for h in call(asked, "GET", "/agent/routes").json()["hosts"] if h["app_id"] == app.pk]
    assert host["targets"] == []


def test_packages_only_for_what_the_node_runs(platform, placed):
    (_, second, *_) = platform.node_names
    answer = call(node_token(second), "GET", f"/agent/packages/{placed.release.package_id}")
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_package")

"""The leader's loop: nodes lost and back, deletion, waiting for room."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from django.conf import settings

from apps.models import App, ConfigRevision
from consensus import gate
from instances import nodes, purge
from instances.conftest import Platform, call, node_token
from instances.controller import Controller
from instances.models import Deployment, Instance, LatestSample, LogLine, LogOffset, Node
from instances.nodes import Beat, Verdicts, judge, suspect_after
from instances.telemetry import ingest
from instances.test_deployments import deployed
from omni.kernel import clock
from omni.kernel.models import Event
from omni.testing.factories import make_instance, make_release
from releases.models import Build, Release

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


def beat(name: str, age_s: float, status: str = "ready", heard: bool = True) -> Beat:
    return Beat(int(name), name, status, age_s, heard)


def test_judging_nodes():
    four = [beat("1", 9.0), beat("2", 0.1), beat("3", 0.1), beat("4", 0.1)]
    assert [b.name for b in judge(four, 5.0).lost] == ["1"]
    three_gone = [beat("1", 9.0), beat("2", 9.0), beat("3", 9.0), beat("4", 0.1)]
    assert judge(three_gone, 5.0).lost == ()
    assert len(judge(three_gone, 5.0).held) == 3
    assert [b.name for b in judge([beat("1", 9.0), beat("2", 9.0), beat("3", 0.1), beat("4", 0.1)], 5.0).lost] == [
        "1",
        "2",
    ]
    assert [b.name for b in judge([beat("1", 9.0)], 5.0).lost] == ["1"]
    assert [b.name for b in judge([beat("1", 0.1, "lost")], 5.0).back] == ["1"]
    assert judge([beat("1", 0.1, "lost", heard=False)], 5.0).back == ()
    assert judge([beat("1", 9.0, "joining")], 5.0).lost == ()


def test_nodes_that_fall_silent_together_are_held_although_their_leases_end_one_after_the_other():
    """Their last heartbeats were up to a heartbeat apart: the first one's lease must not be taken for a loss alone."""
    falling = [beat("1", 5.1), beat("2", 4.6), beat("3", 4.2), beat("4", 0.1)]
    assert suspect_after(5.0, 1.0) == 3.0
    found = judge(falling, 5.0, 3.0)
    assert found.lost == ()
    assert [b.name for b in found.held] == ["1", "2", "3"]
    one = [beat("1", 5.1), beat("2", 1.2), beat("3", 0.3), beat("4", 0.1)]
    assert [b.name for b in judge(one, 5.0, 3.0).lost] == ["1"]
    none_yet = [beat("1", 4.9), beat("2", 4.6), beat("3", 4.2), beat("4", 0.1)]
    assert judge(none_yet, 5.0, 3.0) == Verdicts()


def test_nodes_that_are_no_members_any_more_are_lost_whatever_their_number():
    strangers = [replace(beat(str(number), 9.0), member=False) for number in (2, 3, 4)]
    found = judge([beat("1", 0.1), *strangers], 5.0, 3.0)
    assert [b.name for b in found.lost] == ["2", "3", "4"]
    assert found.held == ()
    mixed = judge([beat("1", 9.0), beat("5", 9.0), *strangers], 5.0, 3.0)
    assert [b.name for b in mixed.lost] == ["2", "3", "4"]
    assert [b.name for b in mixed.held] == ["1", "5"]


def expire(platform: Platform) -> None:
    """Time passes for the lease that a new leader gives."""
    platform.controller._lease_from -= 60


def test_a_lost_node_is_replaced_elsewhere_and_clears_up_when_it_is_back(platform):
    app = deployed(platform, 3)
    gone = Instance.objects.filter(app=app).select_related("node").first()
    platform.ages[gone.node.name] = 30.0
    expire(platform)
    platform.tick()
    assert Node.objects.get(name=gone.node.name).status == "lost"
    gone.refresh_from_db()
    assert (gone.status, gone.desired) == ("lost", "remove")
    successor = Instance.objects.get(app=app, slot=gone.slot, desired="run")
    assert successor.node_id != gone.node_id
    for row in Instance.objects.filter(app=app, desired="run").exclude(node_id=gone.node_id):
        platform._act(row)
    platform.tick()
    # back: the old one is to be removed there before anything new comes
    platform.ages[gone.node.name] = 0.1
    platform.tick()
    assert Node.objects.get(name=gone.node.name).status == "ready"
    (listed,) = call(node_token(gone.node.name), "GET", "/agent/assignments").json()["instances"]
    assert (listed["id"], listed["desired"]) == (gone.pk, "remove")
    app.refresh_from_db()
    from instances import observe

    view = next(v for v in observe.node_views() if v.name == gone.node.name)
    assert view.leftovers == 1
    platform.settle()
    assert next(v for v in observe.node_views() if v.name == gone.node.name).leftovers == 0


def test_a_lost_singleton_is_replaced_only_when_its_node_must_have_ended_it(platform):
    """The lease (5 s), then its stop time-out (10 s), then a margin: until then it may still run there."""
    app = deployed(platform, 1, singleton=True)
    (row,) = Instance.objects.filter(app=app).select_related("node")
    (listed,) = call(node_token(row.node.name), "GET", "/agent/assignments").json()["instances"]
    assert listed["singleton"] is True
    expire(platform)
    for age, status in ((6.0, "running"), (16.9, "running"), (17.2, "lost")):
        platform.ages[row.node.name] = age
        platform.controller._singletons_at = 0.0
        platform.tick()
        assert Node.objects.get(pk=row.node_id).status == "lost"
        row.refresh_from_db()
        assert row.status == status, age
    successor = Instance.objects.get(app=app, desired="run")
    assert successor.node_id != row.node_id


def test_a_singleton_whose_node_returns_in_time_is_not_replaced(platform):
    app = deployed(platform, 1, singleton=True)
    (row,) = Instance.objects.filter(app=app).select_related("node")
    platform.ages[row.node.name] = 8.0
    expire(platform)
    platform.tick(3)
    platform.ages[row.node.name] = 0.1
    platform.settle()
    row.refresh_from_db()
    assert (row.status, row.desired) == ("running", "run")
    assert Node.objects.get(pk=row.node_id).status == "ready"


def test_a_new_leader_gives_every_node_a_full_lease(platform):
    deployed(platform)
    platform.ages.clear()
    controller = Controller(ages=dict)
    controller.tick()
    assert not Node.objects.filter(status="lost").exists()


def test_after_a_cold_start_a_node_that_was_not_heard_of_yet_has_longer(platform):
    """Its agent may still be starting beside everything else; one that was heard and fell silent gets no more."""
    deployed(platform)
    late, silent, _ = platform.node_names
    begun = clock.monotonic()
    platform.controller = Controller(ages=lambda: platform.ages, patience_s=10.0)
    platform.ages.pop(late)
    lease_s = settings.CONFIG.timings.node_lease_s
    platform.later(lease_s + 2)
    platform.controller._last_tick = clock.monotonic()
    platform.ages[silent] = lease_s + 1
    platform.controller.tick()
    assert [node.name for node in Node.objects.filter(status="lost")] == [silent]
    platform.later(10.0)
    platform.controller._last_tick = clock.monotonic()
    platform.controller.tick()
    assert clock.monotonic() - begun > lease_s + 10
    assert {node.name for node in Node.objects.filter(status="lost")} == {late, silent}


def test_a_database_that_returns_gives_every_node_a_full_lease(platform):
    """While it was away the leader could not act, and nothing that it heard in that time counts."""
    deployed(platform)
    silent = platform.node_names[0]
    platform.ages[silent] = 40.0
    expire(platform)
    platform.controller._last_tick -= 30  # the ticks in between failed
    platform.tick()
    assert not Node.objects.filter(status="lost").exists()
    expire(platform)
    platform.tick()
    assert [node.name for node in Node.objects.filter(status="lost")] == [silent]


def test_more_than_half_silent_at_once_is_held_and_alerted_once(platform):
    deployed(platform)
    for name in platform.node_names[:2]:
        platform.ages[name] = 60.0
    expire(platform)
    platform.tick(4)
    assert not Node.objects.filter(status="lost").exists()
    assert Event.objects.filter(kind="nodes.loss_held").count() == 1


def test_drain_moves_and_activate_takes_back(platform):
    app = deployed(platform, 2)
    node = Instance.objects.filter(app=app).select_related("node").first().node
    dry = platform.call("POST", f"/nodes/{node.pk}/drain?dry_run=true").json()
    assert [a["action"] for a in dry["plan"]["actions"]] == ["place", "stop"]
    answer = platform.call("POST", f"/nodes/{node.name}/drain")
    assert (answer.status_code, answer.json()["status"]) == (202, "draining")
    platform.settle()
    assert len(platform.serving(app)) == 2
    assert not Instance.objects.filter(app=app, desired="run", node=node).exists()
    assert platform.call("POST", f"/nodes/{node.pk}/activate").json()["status"] == "ready"


@pytest.mark.slow
def test_no_room_waits_and_room_is_taken_when_another_app_stops(platform, in_gate):
    big = platform.app(instances=3)
    ConfigRevision.objects.filter(app=big)
    with gate.maintenance("bigger"):
        ConfigRevision.objects.filter(app=big).update(memory_mb=2000)
    platform.call("POST", f"/app/{big.pk}/release/v1/deploy")
    platform.settle()
    small = platform.app()
    with gate.maintenance("bigger"):
        ConfigRevision.objects.filter(app=small).update(memory_mb=100)
    platform.call("POST", f"/app/{small.pk}/release/v1/deploy")
    platform.tick()
    row = Instance.objects.get(app=small)
    assert row.status == "pending"
    assert "100 MB of memory are needed, at most 48 are free (3 of 3 nodes)" in row.reason
    details = platform.call("GET", f"/app/{small.pk}/instances/{row.pk}/details").json()
    assert len(details["placement"]["verdicts"]) == 3
    from instances import services

    in_gate(lambda tx: services.stop(tx, App.objects.get(pk=big.pk)))
    platform.settle()
    assert platform.serving(small) == ["v1"]


def test_a_plan_made_from_old_rows_is_refused_whole(platform, in_gate):
    from instances import observe
    from instances.apply import ObservedElsewise, apply
    from instances.plan.planner import plan

    app = platform.app(instances=2)
    platform.call("POST", f"/app/{app.pk}/release/v1/deploy")
    (seen,) = observe.observe([app.pk], observe.node_views())
    made = plan(seen.desired, seen.observed, clock.now())
    in_gate(lambda tx: apply(tx, seen, made))
    assert Instance.objects.filter(app=app).count() == 2
    with pytest.raises(ObservedElsewise):
        in_gate(lambda tx: apply(tx, seen, made))
    assert Instance.objects.filter(app=app).count() == 2


@pytest.mark.slow
def test_deletion_leaves_nothing(platform, in_gate, tmp_path, monkeypatch):
    from instances import services

    kept = deployed(platform)
    app = deployed(platform, 2)
    make_release(app, "v2")
    rows = list(Instance.objects.filter(app=app).select_related("node"))
    for row in rows:
        lines = [[1_700_000_000_000_000 + i, 0, f"line {i}"] for i in range(10)]
        ingest.store_logs(row.node.name, [{"instance_id": row.pk, "app_id": app.pk, "first_seq": 1, "lines": lines}])
    # one of them is on a node that is lost: it counts as gone
    platform.ages[rows[0].node.name] = 60.0
    expire(platform)
    in_gate(lambda tx: services.delete(tx, App.objects.get(pk=app.pk)))
    platform.settle()
    for model in (Instance, Deployment, Release, Build, ConfigRevision):
        assert not model.objects.filter(app_id=app.pk).exists(), model
    for model in (LogLine, LogOffset, LatestSample):
        assert not model.objects.filter(app_id=app.pk).exists(), model
    assert not App.objects.filter(pk=app.pk).exists()
    assert App.objects.filter(pk=kept.pk).exists()
    assert platform.serving(kept) == ["v1"]
    # lines that come too late are dropped
    answer = ingest.store_logs(rows[1].node.name, [
        {"instance_id": rows[1].pk, "app_id": app.pk, "first_seq": 11, "lines": [[1, 0, "late"]]}
    ])  # fmt: skip
    assert answer.unknown == [rows[1].pk]


def test_instances_long_gone_are_forgotten_with_their_logs_and_no_sooner(platform):
    app = deployed(platform)
    kept = Instance.objects.get(app=app)
    old = make_instance(app, node=kept.node, status="stopped", desired="remove", finished_at=clock.now())
    listed = make_instance(app, node=kept.node, status="stopped", desired="remove", on_node=True,
                           finished_at=clock.now())  # fmt: skip
    assert purge.forget_ended(clock.now() - dt.timedelta(days=1)) == 0
    LogOffset.objects.create(instance_id=old.pk, app_id=app.pk, node="x", last_seq=1)
    assert purge.forget_ended(clock.now() + dt.timedelta(seconds=1)) == 1
    assert set(Instance.objects.filter(app=app)) == {kept, listed}
    assert not LogOffset.objects.filter(instance_id=old.pk).exists()


def test_a_deleted_app_takes_no_more_wishes(platform, in_gate):
    from instances import services

    app = deployed(platform)
    in_gate(lambda tx: services.delete(tx, App.objects.get(pk=app.pk)))
    answer = platform.call("POST", f"/app/{app.pk}/release/v1/deploy")
    assert (answer.status_code, answer.json()["code"]) == (409, "app_deleting")


def test_names_of_states():
    assert {"ready", "draining"} == nodes.ALIVE

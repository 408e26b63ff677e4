"""Deployments from the wish to the end, with real rows, the gate, the controller, and agents played by hand."""

from __future__ import annotations

import pytest

from apps import services as app_services
from instances import queries, services
from instances.conftest import Platform
from instances.models import Deployment, Instance
from omni.kernel.models import Event
from omni.testing.factories import make_release
from releases import services as release_services
from releases.models import Release

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


def deployed(platform: Platform, count: int = 1, **fields):
    app = platform.app(instances=count, **fields)
    answer = platform.call("POST", f"/app/{app.pk}/release/v1/deploy")
    assert answer.status_code == 202, answer.content
    platform.settle()
    app.refresh_from_db()
    assert platform.serving(app) == ["v1"] * count
    assert app.status == "running"
    return app


def test_deploy_places_starts_and_succeeds(platform):
    app = deployed(platform, 3)
    row = platform.deployment(app)
    assert row.status == "succeeded"
    assert row.active_key is None
    assert {step["what"] for step in row.steps} >= {"place", "finish"}
    nodes = Instance.objects.filter(app=app).values_list("node__name", flat=True)
    assert len(set(nodes)) == 3
    kinds = list(Event.objects.filter(app_id=app.pk).order_by("key").values_list("kind", flat=True))
    assert kinds.index("deployment.created") < kinds.index("instance.placed") < kinds.index("deployment.succeeded")


def test_the_same_state_is_a_fixed_point_and_an_idle_tick_is_one_query(platform, django_assert_num_queries):
    deployed(platform, 2)
    before = Event.objects.count()
    platform.tick(3)
    with django_assert_num_queries(1):
        assert platform.controller.tick() == "nothing to do"
    assert Event.objects.count() == before


def test_an_update_keeps_serving_and_a_bad_one_is_reverted_with_evidence(platform):
    app = deployed(platform, 2)
    make_release(app, "v2")
    platform.broken = {"v2"}
    answer = platform.call("POST", f"/app/{app.pk}/release/v2/deploy")
    for _ in range(20):
        platform.tick()
        assert platform.serving(app) == ["v1", "v1"]
        platform.agents_act()
    row = platform.deployment(app)
    assert row.pk == answer.json()["id"]
    assert row.status == "reverted"
    assert row.error_code == "instance_failed"
    assert row.evidence["last_exit"]["lines"] == ["boom"]
    app.refresh_from_db()
    assert app.desired_release == 1
    assert row.serial == app.deploy_serial
    assert app.status == "running"
    platform.broken = set()
    make_release(app, "v3")
    platform.call("POST", f"/app/{app.pk}/release/v3/deploy")
    platform.settle()
    assert platform.serving(app) == ["v3", "v3"]
    assert platform.deployment(app).previous_release.version == "v1"


def test_a_reverted_configuration_change_brings_the_old_configuration_back(platform, in_gate):
    app = deployed(platform)
    platform.broken = {"v1"}

    def change(tx):
        app.refresh_from_db()
        _, revision = app_services.update_app(tx, app, {"memory_mb": 32, "env": {"A": "1"}})
        return services.deploy(tx, app, release_services.change_configuration(tx, app, revision), kind="config")

    in_gate(change)
    platform.settle()
    app.refresh_from_db()
    assert platform.deployment(app).status == "reverted"
    assert app.memory_mb == 64
    assert app.desired_release == 1
    assert platform.serving(app) == ["v1"]


def test_rollback_restores_what_ran_before(platform):
    app = deployed(platform)
    make_release(app, "v2")
    platform.call("POST", f"/app/{app.pk}/release/v2/deploy")
    platform.settle()
    answer = platform.call("POST", f"/app/{app.pk}/rollback", {})
    assert answer.status_code == 202, answer.content
    assert answer.json()["version"] == "v1"
    assert answer.json()["kind"] == "rollback"
    platform.settle()
    assert platform.serving(app) == ["v1"]
    assert platform.call("POST", f"/app/{app.pk}/rollback", {}).json()["version"] == "v2"


def test_rollback_after_a_reverted_deployment_skips_what_runs_anyway(platform):
    app = deployed(platform)
    for version in ("v2", "v3"):
        make_release(app, version)
        platform.broken = {"v3"}
        platform.call("POST", f"/app/{app.pk}/release/{version}/deploy")
        platform.settle()
    assert platform.serving(app) == ["v2"]
    assert platform.call("POST", f"/app/{app.pk}/rollback", {}).json()["version"] == "v1"


def test_rollback_with_nothing_before_is_a_conflict(platform):
    app = deployed(platform)
    answer = platform.call("POST", f"/app/{app.pk}/rollback", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_roll_back")


def test_scale_stop_start_restart(platform, in_gate):
    app = deployed(platform)
    first = Instance.objects.get(app=app)
    for act, count in [
        (lambda tx: services.scale(tx, app, {"web": 4}), 4),
        (lambda tx: services.scale(tx, app, {"web": 2}), 2),
        (lambda tx: services.stop(tx, app), 0),
        (lambda tx: services.start(tx, app), 2),
        (lambda tx: services.restart(tx, app), 2),
    ]:
        app.refresh_from_db()
        deployment = in_gate(act)
        platform.settle()
        assert len(platform.serving(app)) == count
        deployment.refresh_from_db()
        assert deployment.status == "succeeded", deployment.kind
    app.refresh_from_db()
    assert in_gate(lambda tx: services.scale(tx, app, {"web": 2})) is None
    first.refresh_from_db()
    assert first.desired == "remove"
    assert not first.on_node


def test_cancel_goes_back_and_only_once(platform):
    app = deployed(platform)
    make_release(app, "v2")
    made = platform.call("POST", f"/app/{app.pk}/release/v2/deploy").json()
    platform.tick()
    answer = platform.call("POST", f"/app/{app.pk}/deployments/{made['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    again = platform.call("POST", f"/app/{app.pk}/deployments/{made['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "transition_refused")
    platform.settle()
    assert platform.serving(app) == ["v1"]
    assert platform.deployment(app).status == "reverted"
    app.refresh_from_db()
    assert app.desired_release == 1


def test_a_newer_deployment_supersedes_a_running_one(platform):
    app = deployed(platform)
    make_release(app, "v2")
    make_release(app, "v3")
    first = platform.call("POST", f"/app/{app.pk}/release/v2/deploy").json()
    platform.tick()
    platform.call("POST", f"/app/{app.pk}/release/v3/deploy")
    platform.settle()
    assert platform.serving(app) == ["v3"]
    assert Deployment.objects.get(pk=first["id"]).status == "cancelled"
    assert platform.deployment(app).previous_release.version == "v1"


def test_a_wish_left_as_data_becomes_a_deployment(platform, in_gate):
    app = platform.app()
    in_gate(lambda tx: app_services.wish(tx, app, release_number=1, kind="deploy", cause="build 1"))
    platform.settle()
    assert platform.serving(app) == ["v1"]
    assert Deployment.objects.filter(app=app).count() == 1


def test_a_dry_run_shows_the_whole_rollout_and_changes_nothing(platform):
    app = deployed(platform, 2)
    make_release(app, "v2")
    before = Event.objects.count(), Release.objects.count()
    answer = platform.call("POST", f"/app/{app.pk}/release/v2/deploy?dry_run=true")
    assert answer.status_code == 200, answer.content
    plan = answer.json()["plan"]
    assert [a["action"] for a in plan["actions"]] == ["place", "stop", "place", "stop"]
    assert all(a["node"] for a in plan["actions"])
    assert plan["settles"]
    assert (Event.objects.count(), Release.objects.count()) == before
    assert platform.serving(app) == ["v1", "v1"]


def test_a_dry_run_of_the_impossible_says_what_is_missing(platform):
    app = deployed(platform)
    app_row = platform.app(instances=200)
    answer = platform.call("POST", f"/app/{app_row.pk}/release/v1/deploy?dry_run=true").json()
    assert not answer["plan"]["settles"]
    assert "MB of memory are needed" in answer["plan"]["pending"][0]["reason"]
    assert platform.serving(app) == ["v1"]


def test_one_instance_restarts_in_place_and_a_stopped_one_gets_a_successor(platform):
    app = deployed(platform)
    row = Instance.objects.get(app=app, desired="run")
    answer = platform.call("POST", f"/app/{app.pk}/instances/{row.pk}/restart")
    assert (answer.status_code, answer.json()["generation"]) == (202, 1)
    answer = platform.call("POST", f"/app/{app.pk}/instances/{row.pk}/stop")
    assert answer.status_code == 202
    assert platform.call("POST", f"/app/{app.pk}/instances/{row.pk}/stop").json()["code"] == "instance_not_running"
    platform.settle()
    (successor,) = Instance.objects.filter(app=app, desired="run")
    assert successor.slot == row.slot
    assert successor.pk != row.pk


def test_info_says_what_runs_what_ran_before_and_the_latest_deployment(platform, django_assert_max_num_queries):
    app = deployed(platform, 2)
    make_release(app, "v2")
    platform.call("POST", f"/app/{app.pk}/release/v2/deploy")
    platform.settle()
    with django_assert_max_num_queries(8):
        body = platform.call("GET", f"/app/{app.pk}/info").json()
    assert (body["version"]["current"], body["version"]["previous"]) == ("v2", "v1")
    assert body["instances_summary"] == {"desired": 2, "running": 2, "healthy": 2, "failed": 0}
    latest = platform.call("GET", f"/app/{app.pk}/deployments/{body['deployment']['id']}").json()
    assert latest.pop("steps")
    assert latest.pop("evidence") is None
    assert latest.pop("comparison") is None
    assert latest.pop("ledger")["requests"] is None
    assert body["deployment"] == latest
    app.refresh_from_db()
    assert queries.version(app.pk) == body["version"]

"""Rollouts as people meet them: by hand, gates, freezes, the ledger, input; real rows, gate and controller."""

from __future__ import annotations

import pytest

from instances.conftest import BLUE_GREEN, CANARY, answered, detail, of
from instances.models import Deployment, Instance
from instances.telemetry.models import RequestSample
from instances.test_deployments import deployed
from omni.kernel import clock
from omni.kernel.models import Event
from omni.testing.factories import make_release

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]

# -- by hand


def test_paused_holds_everything_replaces_the_lost_by_their_like_and_goes_on_when_resumed(platform):
    app = deployed(platform, 4)
    made = platform.deploy(app, "v2")
    while len(of(app, "v2")) < 2:
        platform.tick()
        platform.agents_act()
    assert platform.call("POST", made["links"]["pause"]).json()["phase"] in ("paused", "pending")
    platform.settle()
    held = (len(of(app, "v1")), len(of(app, "v2")))
    assert sum(held) >= 4
    old = Instance.objects.filter(app=app, desired="run", release__version="v1").select_related("node")
    lost = old.order_by("-slot")[0]  # in a slot where nothing else serves
    platform.report(lost, "failed", detail="gone")
    for _ in range(30):
        platform.later(9)  # no deadline runs
        platform.restart_leader()
        platform.tick()
        platform.agents_act()
    assert (len(of(app, "v1")), len(of(app, "v2"))) == held
    assert detail(platform, made)["phase"] == "paused"
    assert platform.call("POST", made["links"]["pause"]).status_code == 202
    assert platform.call("POST", made["links"]["promote"]).json()["code"] == "nothing_to_promote"
    assert platform.call("POST", made["links"]["resume"]).json()["phase"] == "rolling"
    platform.settle()
    assert platform.serving(app) == ["v2"] * 4
    assert detail(platform, made)["status"] == "succeeded"


def test_a_paused_trial_is_neither_promoted_nor_left_alone_with_errors(platform):
    app = deployed(platform, 2, strategy={**CANARY, "bake_s": 5})
    made = platform.deploy(app, "v2")
    platform.settle()
    platform.call("POST", made["links"]["pause"])
    assert platform.call("POST", made["links"]["promote"]).json()["code"] == "deployment_paused"
    platform.later(9)
    platform.settle()
    assert detail(platform, made)["phase"] == "paused"
    for _ in range(2):
        platform.crash(Instance.objects.select_related("node").get(id=of(app, "v2")[0]))
    platform.settle()
    assert detail(platform, made)["status"] == "reverted"


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "cancel"])
def test_a_deployment_that_is_over_takes_no_verb_and_says_what_helps(platform, verb):
    app = deployed(platform, strategy={"type": "canary"})
    answer = platform.call("POST", f"/app/{app.pk}/deployments/{platform.deployment(app).pk}/{verb}")
    assert answer.status_code == 409
    assert answer.json()["code"] in ("deployment_ended", "transition_refused")


def test_what_cannot_be_held_back_says_why(platform):
    app = deployed(platform, 2, strategy={"type": "recreate"})
    made = platform.deploy(app, "v2")
    assert platform.call("POST", made["links"]["pause"]).json()["code"] == "not_pausable"
    platform.settle()
    scaling = platform.call("POST", f"/app/{app.pk}/scale", {"instances": 3}).json()
    assert platform.call("POST", scaling["links"]["pause"]).json()["code"] == "not_pausable"


# -- gate


def test_what_is_healthy_counts_only_after_it_has_stayed_so(platform):
    app = deployed(platform, 1)
    platform.call("PATCH", f"/app/{app.pk}", {"strategy": {"min_ready_s": 5}})
    made = platform.deploy(app, "v2")
    platform.settle()
    assert platform.serving(app) == ["v1", "v2"]
    assert detail(platform, made)["status"] == "rolling"
    platform.later(5)
    platform.settle()
    assert platform.serving(app) == ["v2"]


def test_a_release_that_crashes_after_a_minute_is_reverted_while_it_is_watched_and_only_then(platform):
    app = deployed(platform, 2)
    for version, wait_s, end in (("v2", 60, "reverted"), ("v3", 301, "succeeded")):
        made = platform.deploy(app, version)
        platform.settle()
        assert detail(platform, made)["status"] == "succeeded"
        platform.later(wait_s)
        row = Instance.objects.filter(id=of(app, version)[0]).select_related("node").get()
        platform.crash(row)
        platform.crash(row)
        platform.settle()
        shown = detail(platform, made)
        assert shown["status"] == end
    assert platform.serving(app) == ["v3", "v3"]
    assert Deployment.objects.filter(app=app, status="reverted").get().evidence["last_exit"]["code"] == 3


def test_one_crash_is_nobodys_fault_and_half_of_them_is(platform):
    app = deployed(platform, 4)
    made = platform.deploy(app, "v2")
    platform.settle()
    first, second = Instance.objects.filter(id__in=of(app, "v2")[:2]).select_related("node")
    platform.crash(first)
    platform.settle()
    assert detail(platform, made)["status"] == "succeeded"
    platform.crash(second)
    platform.settle()
    assert detail(platform, made)["status"] == "reverted"


def test_an_unhealthy_instances_last_probe_and_log_are_the_evidence(platform):
    from instances.telemetry import ingest

    app = deployed(platform)
    made = platform.deploy(app, "v2")
    platform.tick()
    row = Instance.objects.filter(id=of(app, "v2")[0]).select_related("node").get()
    ingest.store_logs(row.node.name, [
        {"instance_id": row.pk, "app_id": app.pk, "first_seq": 1, "lines": [[1, 0, "cannot reach the database"]]}
    ])  # fmt: skip
    probe = {"at": "2026-01-01T00:00:00Z", "ok": False, "detail": "GET / answered 503", "status": 503,
             "snippet": "no database"}  # fmt: skip
    platform.report(row, "starting", "starting")
    platform.report(row, "starting", "unhealthy", last_probe=probe, detail="not healthy within 60 s of its start")
    platform.settle()
    shown = detail(platform, made)
    assert (shown["status"], shown["error"]["code"]) == ("reverted", "instance_unhealthy")
    assert shown["evidence"]["last_probe"] == probe
    assert shown["evidence"]["log"] == ["cannot reach the database"]


# -- freeze, ledger, input


def test_a_frozen_app_says_why_and_takes_an_override_on_the_record(platform):
    app = deployed(platform)
    make_release(app, "v2")
    patched = platform.call("PATCH", f"/app/{app.pk}", {"freeze": {"reason": "audit until Friday"}})
    assert patched.json()["freeze"]["reason"] == "audit until Friday"
    for method, path, body in (
        ("POST", "release/v2/deploy", None), ("POST", "rollback", {"version": "v1"}),
        ("PATCH", "config", {"env": {"A": "1"}}),
    ):  # fmt: skip
        answer = platform.call(method, f"/app/{app.pk}/{path}", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "frozen"), path
        assert "audit until Friday" in answer.json()["detail"]
        assert "override_freeze" in answer.json()["next"]
    assert platform.call("POST", f"/app/{app.pk}/restart").status_code == 202
    platform.settle()
    answer = platform.call("POST", f"/app/{app.pk}/release/v2/deploy?override_freeze=true")
    assert answer.status_code == 202
    assert Event.objects.get(kind="app.freeze_overridden").change["reason"] == "audit until Friday"
    platform.settle()
    assert platform.serving(app) == ["v2"]
    lifted = platform.call("PATCH", f"/app/{app.pk}", {"freeze": None, "env": {"A": "1"}})
    assert (lifted.status_code, lifted.json()["deployment"]["kind"]) == (200, "config")


def test_a_freeze_ends_by_itself_at_its_time(platform):
    app = deployed(platform)
    make_release(app, "v2")
    until = clock.rfc3339(clock.now().replace(microsecond=0))
    platform.call("PATCH", f"/app/{app.pk}", {"freeze": {"reason": "x", "until": "2099-01-01T00:00:00Z"}})
    assert platform.call("POST", f"/app/{app.pk}/release/v2/deploy").status_code == 409
    platform.call("PATCH", f"/app/{app.pk}", {"freeze": {"reason": "x", "until": until}})
    assert platform.call("POST", f"/app/{app.pk}/release/v2/deploy").status_code == 202


def test_the_ledger_counts_what_the_ingresses_saw_and_is_kept(platform):
    app = deployed(platform)
    answered(app, of(app, "v1"), 7)
    platform.later(60)
    made = platform.deploy(app, "v2")
    answered(app, of(app, "v1"), 50, failed=2)
    platform.settle()
    shown = detail(platform, made)["ledger"]
    assert (shown["requests"], shown["failed"], shown["retried"], shown["final"]) == (50, 2, 1, False)
    platform.later(31)
    platform.tick()
    RequestSample.objects.all().delete()
    assert detail(platform, made)["ledger"] == {**shown, "final": True}


@pytest.mark.parametrize(
    ("strategy", "field"),
    [
        ({"type": "purple"}, "/strategy/type"),
        ({"max_surge": "many"}, "/strategy/max_surge"),
        ({"max_surge": 0}, "/strategy/max_surge"),
        ({"canary_percent": 100}, "/strategy/canary_percent"),
        ({"bake_s": -1}, "/strategy/bake_s"),
        ({"promote": "sometimes"}, "/strategy/promote"),
        ({"max_latency_factor": 0.5}, "/strategy/max_latency_factor"),
        ({"nonsense": 1}, "/strategy/nonsense"),
    ],
)
def test_a_bad_strategy_names_the_field(platform, strategy, field):
    app = platform.app()
    answer = platform.call("PATCH", f"/app/{app.pk}", {"strategy": strategy})
    assert answer.status_code == 422
    assert field in [error["pointer"] for error in answer.json()["errors"]]


def test_counts_and_percentages_are_taken(platform):
    app = platform.app()
    wanted = {"type": "rolling", "max_surge": "50%", "max_unavailable": "25%"}
    shown = platform.call("PATCH", f"/app/{app.pk}", {"strategy": wanted}).json()["strategy"]
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["watch_s"] == 300


@pytest.mark.parametrize(
    ("strategy", "actions"),
    [
        (CANARY, ["place", "bake", "promote", "stop", "place", "stop"]),
        ({**CANARY, "promote": "manual"}, ["place", "bake", "await_promotion", "stop", "place", "stop"]),
        (BLUE_GREEN, ["place", "place", "bake", "promote", "shift", "stop", "stop", "shift"]),
    ],
)
def test_a_dry_run_shows_the_trial_and_what_follows(platform, strategy, actions):
    app = deployed(platform, 2, strategy=strategy)
    make_release(app, "v2")
    plan = platform.call("POST", f"/app/{app.pk}/release/v2/deploy?dry_run=true").json()["plan"]
    assert [action["action"] for action in plan["actions"]] == actions
    assert plan["settles"]

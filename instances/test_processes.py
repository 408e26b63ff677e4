"""Process types beside web: each with its own count and size, all under one deployment."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from apps.models import App
from instances.conftest import Platform, call, node_token
from instances.models import Instance
from omni.testing.factories import make_app, make_release

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]

WORKING = {"web": "./web", "worker": "./worker"}


@pytest.fixture
def shop(platform: Platform) -> App:
    """Web and worker run, one of each."""
    app = make_app(platform.org, "shop", memory_mb=64, strategy={"min_ready_s": 0}, process_counts={"worker": 1})
    platform.deploy(app, "v1", process_types=WORKING)
    platform.settle()
    return app


def running(app: App) -> dict[str, int]:
    rows = Instance.objects.filter(app=app, status="running", desired="run")
    return dict(Counter(rows.values_list("process_type", flat=True)))


def test_a_type_is_not_started_before_somebody_scales_it(platform: Platform) -> None:
    app = make_app(platform.org, "quiet", memory_mb=64, strategy={"min_ready_s": 0})
    platform.deploy(app, "v1", process_types=WORKING)
    platform.settle()
    assert running(app) == {"web": 1}
    shown = platform.call("GET", f"/app/{app.pk}/info").json()
    assert shown["processes"]["worker"]["instances"] == 0
    assert shown["processes_summary"]["worker"] == {"desired": 0, "running": 0, "healthy": 0, "failed": 0}


def test_each_type_is_scaled_on_its_own(platform: Platform, shop: App) -> None:
    assert running(shop) == {"web": 1, "worker": 1}
    answer = platform.call("POST", f"/app/{shop.pk}/scale", {"processes": {"worker": 3}})
    assert (answer.status_code, answer.json()["instances"]) == (202, 4)
    platform.settle()
    assert running(shop) == {"web": 1, "worker": 3}
    platform.call("POST", f"/app/{shop.pk}/scale", {"instances": 2, "processes": {"worker": 0}})
    platform.settle()
    assert running(shop) == {"web": 2}
    assert platform.call("GET", f"/app/{shop.pk}/info").json()["status"] == "running"


def test_every_type_is_replaced_by_the_next_release_and_only_web_is_routed(platform: Platform, shop: App) -> None:
    platform.deploy(shop, "v2", process_types=WORKING)
    platform.settle()
    rows = Instance.objects.filter(app=shop, status="running").values_list("process_type", "release__version")
    assert sorted(rows) == [("web", "v2"), ("worker", "v2")]
    web = Instance.objects.get(app=shop, status="running", process_type="web")
    assert platform.route(shop)["stable"] == [web.pk]


def test_a_worker_that_fails_fails_the_deployment_of_all(platform: Platform, shop: App) -> None:
    platform.broken = {"v2"}
    platform.deploy(shop, "v2", process_types=WORKING)
    platform.settle()
    last = platform.deployment(shop)
    assert (last.status, last.error_code) == ("reverted", "instance_failed")
    rows = Instance.objects.filter(app=shop, status="running").values_list("process_type", "release__version")
    assert sorted(rows) == [("web", "v1"), ("worker", "v1")]


def test_a_worker_is_checked_by_its_process_and_has_its_own_size(platform: Platform, shop: App) -> None:
    own = {"memory_mb": 32, "stop_timeout_s": 90, "health_check": {"type": "exec", "command": "./alive"}}
    answer = platform.call("PATCH", f"/app/{shop.pk}", {"processes": {"worker": own}})
    assert answer.status_code == 200, answer.content
    assert answer.json()["processes"]["worker"]["memory_mb"] == 32
    platform.settle()
    assigned = _assigned(platform, shop)
    assert assigned["web"]["health_check"] == {}
    assert (assigned["worker"]["memory_mb"], assigned["worker"]["stop_timeout_s"]) == (32, 90)
    assert assigned["worker"]["health_check"] == own["health_check"]
    assert assigned["worker"]["command"] == "./worker"
    platform.call("PATCH", f"/app/{shop.pk}", {"processes": {"worker": {"health_check": None, "memory_mb": None}}})
    platform.settle()
    assigned = _assigned(platform, shop)
    assert (assigned["worker"]["health_check"], assigned["worker"]["memory_mb"]) == ({"type": "process"}, 64)
    assert assigned["worker"]["drain_max_s"] == 0


def _assigned(platform: Platform, app: App) -> dict[str, Any]:
    listed = [item for name in platform.node_names
              for item in call(node_token(name), "GET", "/agent/assignments").json()["instances"]]  # fmt: skip
    return {item["process_type"]: item for item in listed if item["app_id"] == app.pk and item["desired"] == "run"}


def test_a_type_that_the_release_has_not_is_refused_by_name(platform: Platform, shop: App) -> None:
    answer = platform.call("POST", f"/app/{shop.pk}/scale", {"processes": {"wroker": 1}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "no_such_process"
    for body in ({}, {"processes": {}}, {"processes": {"release": 1}}, {"instances": 1, "processes": {"web": 2}}):
        assert platform.call("POST", f"/app/{shop.pk}/scale", body).status_code == 422


def test_a_type_that_a_release_drops_ends_when_the_rest_serves_and_comes_back_with_it(
    platform: Platform, shop: App
) -> None:
    platform.deploy(shop, "v2", process_types={"web": "./web"})
    platform.tick()
    assert Instance.objects.filter(app=shop, process_type="worker", desired="run").exists()
    platform.settle()
    assert running(shop) == {"web": 1}
    assert platform.call("GET", f"/app/{shop.pk}/metrics").json()["instances"]["desired"] == 1
    platform.deploy(shop, "v3", process_types=WORKING)
    platform.settle()
    assert running(shop) == {"web": 1, "worker": 1}


def test_an_app_without_web_runs_workers_alone(platform: Platform) -> None:
    app = make_app(platform.org, "mill", memory_mb=64, strategy={"min_ready_s": 0}, process_counts={"worker": 2})
    platform.deploy(app, "v1", process_types={"worker": "./worker"})
    platform.settle()
    assert running(app) == {"worker": 2}
    info = platform.call("GET", f"/app/{app.pk}/info").json()
    assert (info["status"], info["instances_summary"]["desired"]) == ("running", 2)
    assert platform.route(app)["stable"] == []


def test_workers_keep_the_old_release_while_web_tries_the_new_one(platform: Platform, shop: App) -> None:
    platform.call("PATCH", f"/app/{shop.pk}", {"strategy": {"type": "canary", "promote": "manual", "min_ready_s": 0}})
    platform.deploy(shop, "v2", process_types=WORKING)
    platform.settle()
    rows = Instance.objects.filter(app=shop, status="running").values_list("process_type", "release__version")
    assert sorted(rows) == [("web", "v1"), ("web", "v2"), ("worker", "v1")]
    last = platform.deployment(shop)
    assert platform.call("POST", f"/app/{shop.pk}/deployments/{last.pk}/promote").status_code == 202
    platform.settle()
    rows = Instance.objects.filter(app=shop, status="running").values_list("process_type", "release__version")
    assert sorted(rows) == [("web", "v2"), ("worker", "v2")]


def test_the_list_metrics_and_dry_run_name_types(platform: Platform, shop: App) -> None:
    listed = platform.call("GET", f"/app/{shop.pk}/instances").json()["items"]
    assert sorted(item["process_type"] for item in listed) == ["web", "worker"]
    only = platform.call("GET", f"/app/{shop.pk}/instances?process_type=worker").json()["items"]
    assert [item["process_type"] for item in only] == ["worker"]
    figures = platform.call("GET", f"/app/{shop.pk}/metrics").json()
    assert figures["instances"] == {"desired": 2, "running": 2, "healthy": 2}
    assert figures["processes"]["worker"] == {"desired": 1, "running": 1, "healthy": 1}
    dry = platform.call("POST", f"/app/{shop.pk}/scale?dry_run=true", {"processes": {"worker": 2}}).json()
    assert [(a["action"], a["process_type"]) for a in dry["plan"]["actions"]] == [("place", "worker")]


def test_the_quota_counts_every_type(platform: Platform) -> None:
    org = platform.org
    platform.call("PATCH", f"/orgs/{org.pk}/quota", {"max_instances": 3})
    app = platform.call(
        "POST", "/app/create", {"name": "q", "org": org.name, "processes": {"worker": {"instances": 2}}}
    )
    assert app.status_code == 201, app.content
    assert app.json()["processes"]["worker"]["instances"] == 2
    refused = platform.call("POST", f"/app/{app.json()['id']}/scale", {"processes": {"worker": 3}})
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")


def test_a_rollback_brings_back_what_a_type_had_of_its_own(platform: Platform, shop: App) -> None:
    platform.call("PATCH", f"/app/{shop.pk}", {"processes": {"worker": {"memory_mb": 32}}})
    platform.settle()
    platform.call("POST", f"/app/{shop.pk}/rollback", {"release": 1})
    platform.settle()
    shop.refresh_from_db()
    assert (shop.process_settings, shop.process_counts) == ({}, {"worker": 1})
    assert Instance.objects.get(app=shop, process_type="worker", status="running").memory_mb == 64


def test_a_singleton_has_one_of_each_type(platform: Platform, shop: App) -> None:
    platform.call("PATCH", f"/app/{shop.pk}", {"singleton": True})
    refused = platform.call("POST", f"/app/{shop.pk}/scale", {"processes": {"worker": 2}})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "singleton")
    make_release(shop, "v2", process_types=WORKING)
    platform.call("POST", f"/app/{shop.pk}/release/v2/deploy")
    platform.settle()
    assert running(shop) == {"web": 1, "worker": 1}

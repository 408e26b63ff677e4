"""A dry run says where instances would go, why nowhere, and the smallest change that would help."""

from __future__ import annotations

import pytest

from consensus import gate
from instances.conftest import Platform
from instances.models import Instance, Node
from instances.test_deployments import deployed
from omni.testing.factories import make_release

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]

TOO_MUCH = "lower memory_mb from 4096 to 2048, or free 2048 MB on"


def dry(platform: Platform, method: str, path: str, data=None) -> dict:
    answer = platform.call(method, f"{path}?dry_run=true", data)
    assert answer.status_code in (200, 201, 202), answer.content
    return answer.json()["plan"]


def test_create_says_where_the_instances_would_go(platform):
    plan = dry(platform, "POST", "/app/create", {"name": "shop", "instances": 3, "memory_mb": 64})
    assert sorted(row["node"] for row in plan["placement"]["instances"]) == sorted(platform.node_names)
    assert plan["placement"]["refused"] is None


def test_create_says_why_nothing_fits_and_what_would_help(platform):
    plan = dry(platform, "POST", "/app/create", {"name": "shop", "memory_mb": 4096})
    refused = plan["placement"]["refused"]
    assert "4096 MB of memory are needed, at most 2048 are free" in refused["reason"]
    assert [change["text"].startswith(TOO_MUCH) for change in refused["remedy"]] == [True]
    assert len(refused["verdicts"]) == 3


def test_patch_scale_and_deploy_say_it_too(platform):
    app = deployed(platform, 1)
    for method, path, data in (
        ("PATCH", f"/app/{app.pk}", {"memory_mb": 4096}),
        ("PATCH", f"/app/{app.pk}", {"placement": {"constraints": [{"label": "gpu", "op": "exists"}]}, "instances": 2}),
        ("POST", f"/app/{app.pk}/scale", {"instances": 200}),
    ):
        plan = dry(platform, method, path, data)
        assert plan["settles"] is False
        assert plan["pending"][0]["remedy"], (path, plan["pending"][0])
    assert Instance.objects.count() == 1


def test_a_deploy_that_would_find_no_room_says_so_first(platform):
    app = deployed(platform, 3)
    make_release(app, "v2")
    with gate.maintenance("smaller nodes"):
        Node.objects.update(memory_mb=64)  # one instance each, and no room for a second beside it
    plan = dry(platform, "POST", f"/app/{app.pk}/release/v2/deploy")
    assert plan["settles"] is False
    assert "64 MB of memory are needed, at most 0 are free" in plan["pending"][0]["reason"]
    assert plan["pending"][0]["remedy"]
    assert len(plan["pending"][0]["verdicts"]) == 3


@pytest.mark.slow
def test_an_instance_that_waits_for_room_shows_it_in_its_details(platform):
    app = deployed(platform, 1)
    assert platform.call("POST", f"/app/{app.pk}/scale", {"instances": 200}).status_code == 202
    platform.tick()
    waiting = Instance.objects.filter(app=app, status="pending").first()
    details = platform.call("GET", f"/app/{app.pk}/instances/{waiting.pk}/details").json()
    assert details["placement"]["node"] is None
    assert details["placement"]["remedy"][0]["kind"] in ("lower_memory", "free_memory")


def test_a_drain_that_would_strand_instances_says_so_first(platform):
    app = deployed(platform, 3)
    assert platform.call("PATCH", f"/app/{app.pk}", {"placement": {"anti_affinity": "required"}}).status_code == 200
    platform.settle()
    node = Node.objects.get(name=platform.node_names[0])
    plan = dry(platform, "POST", f"/nodes/{node.pk}/drain")
    assert plan["settles"] is False
    assert plan["pending"][0]["remedy"][0]["kind"] == "allow_neighbours"

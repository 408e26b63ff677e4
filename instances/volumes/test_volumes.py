"""Volumes of rows, with agents played by hand: pinned, kept, given up only on an explicit word."""

from __future__ import annotations

from typing import Any

import pytest

from apps.models import App
from instances.conftest import Platform, call, node_token
from instances.models import Instance, Volume
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_org, make_token

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


@pytest.fixture
def shop(platform: Platform) -> App:
    """Stopped, with a release; its volume is on the second node."""
    app = make_app(platform.org, "shop", memory_mb=64, strategy={"min_ready_s": 0})
    platform.deploy(app, "v1")
    platform.settle()
    platform.call("POST", f"/app/{app.pk}/stop")
    platform.settle()
    answer = create(platform, app, node=platform.node_names[1])
    assert answer.status_code == 201, answer.content
    return app


def create(platform: Platform, app: App, name: str = "data", path: str = "/data", **fields: Any) -> Any:
    return platform.call("POST", f"/app/{app.pk}/volumes", {"name": name, "path": path, **fields})


def start(platform: Platform, app: App) -> Instance:
    assert platform.call("POST", f"/app/{app.pk}/start").status_code == 202
    platform.settle()
    return Instance.objects.select_related("node").get(app=app, status="running")


def lists(node: str) -> dict[str, Any]:
    return dict(call(node_token(node), "GET", "/agent/assignments").json())


def tell(node: str, **seen: Any) -> None:
    report = {"node": node, "incarnation": 1, "volumes": [seen]}
    assert call(node_token(node), "POST", "/agent/report", report).status_code == 200


def test_an_instance_goes_to_the_node_of_its_volume_and_finds_it_there(platform: Platform, shop: App) -> None:
    home = platform.node_names[1]
    row = start(platform, shop)
    assert row.node is not None
    assert row.node.name == home
    key = Volume.objects.get(app=shop).key
    listed = lists(home)
    (assigned,) = [item for item in listed["instances"] if item["id"] == row.pk]
    assert assigned["volumes"] == [{"key": key, "name": "data", "path": "/data"}]
    assert assigned["singleton"] is True
    assert listed["volumes"] == [{"key": key, "keep": True}]
    assert all(lists(name)["volumes"] == [] for name in platform.node_names if name != home)
    shown = platform.call("GET", f"/app/{shop.pk}/instances/{row.pk}/details").json()
    assert (shown["pinned_to"], shown["volumes"]) == (home, [{"name": "data", "path": "/data"}])


def test_it_is_shown_where_people_look(platform: Platform, shop: App) -> None:
    home = platform.node_names[1]
    info = platform.call("GET", f"/app/{shop.pk}/info").json()
    assert (info["volume_node"], info["singleton"]) == (home, True)
    assert [(v["name"], v["node"], v["size_bytes"]) for v in info["volumes"]] == [("data", home, None)]
    nodes = {item["name"]: item["volumes"] for item in platform.call("GET", "/nodes").json()["items"]}
    assert [(v["app"], v["name"]) for v in nodes[home]] == [("shop", "data")]
    assert platform.call("GET", f"/app/{shop.pk}/volumes").json()["items"] == info["volumes"]


def test_the_size_is_what_the_node_measured_and_no_other_nodes_word_counts(platform: Platform, shop: App) -> None:
    row = Volume.objects.get(app=shop)
    tell(platform.node_names[0], key=row.key, size_bytes=7)
    assert platform.call("GET", f"/app/{shop.pk}/volumes/data").json()["size_bytes"] is None
    tell(platform.node_names[1], key=row.key, size_bytes=4096)
    assert platform.call("GET", f"/app/{shop.pk}/volumes/data").json()["size_bytes"] == 4096
    tell(platform.node_names[1], key=row.key, removed=True)  # nobody asked for that
    assert Volume.objects.get(app=shop).on_node


def test_with_its_node_gone_an_app_waits_and_the_verdict_says_for_what(platform: Platform, shop: App) -> None:
    home = platform.node_names[1]
    row = start(platform, shop)
    platform.ages[home] = 60.0
    platform.controller._lease_from -= 60  # the lease that a new leader gives has passed
    platform.tick()
    platform.later(1.0)  # singletons are looked at now and then
    platform.tick(6)
    row.refresh_from_db()
    assert row.status == "lost"
    waiting = Instance.objects.get(app=shop, desired="run", status="pending")
    assert waiting.node is None
    verdicts = {entry["node"]: entry["reason"] for entry in waiting.placement["verdicts"]}
    assert verdicts[platform.node_names[0]] == f"the app's volumes are on {home}"
    assert [change["kind"] for change in waiting.placement["remedy"]] == ["bring_node_back"]
    assert waiting.placement["remedy"][0]["node"] == home
    platform.ages[home] = 0.0
    platform.settle()
    again = Instance.objects.get(app=shop, status="running")
    assert again.node is not None
    assert again.node.name == home


def test_volumes_change_only_while_nothing_of_the_app_runs(platform: Platform, shop: App) -> None:
    start(platform, shop)
    answer = create(platform, shop, "more", "/srv/more")
    assert (answer.status_code, answer.json()["code"]) == (409, "app_running")
    gone = platform.call("DELETE", f"/app/{shop.pk}/volumes/data?confirm=data")
    assert (gone.status_code, gone.json()["code"]) == (409, "app_running")


def test_an_app_with_a_volume_stays_a_singleton(platform: Platform, shop: App) -> None:
    refused = platform.call("PATCH", f"/app/{shop.pk}", {"singleton": False})
    assert (refused.status_code, refused.json()["code"]) == (409, "app_has_volumes")
    scaled = platform.call("POST", f"/app/{shop.pk}/scale", {"instances": 2})
    assert (scaled.status_code, scaled.json()["errors"][0]["code"]) == (422, "singleton")
    many = make_app(platform.org, "many", instances=2)
    answer = create(platform, many)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "singleton")
    assert not Volume.objects.filter(app=many).exists()


def test_all_volumes_of_an_app_are_on_one_node_under_paths_of_their_own(platform: Platform, shop: App) -> None:
    assert create(platform, shop, "more", "/srv/more").json()["node"] == platform.node_names[1]
    other = create(platform, shop, "third", "/third", node=platform.node_names[0])
    assert other.json()["errors"][0]["code"] == "other_node"
    assert create(platform, shop, "third", "/data/x").json()["errors"][0]["pointer"] == "/path"
    assert create(platform, shop, "data", "/elsewhere").json()["code"] == "volume_exists"
    fresh = make_app(platform.org, "fresh")
    assert create(platform, fresh, node="nowhere").json()["errors"][0]["code"] == "no_such_node"
    assert create(platform, fresh).json()["node"] in platform.node_names


def test_deleting_a_volume_asks_says_what_is_lost_and_tells_the_node(platform: Platform, shop: App) -> None:
    row = Volume.objects.get(app=shop)
    tell(row.node_name, key=row.key, size_bytes=5_000_000)
    path = f"/app/{shop.pk}/volumes/data"
    for given in ("", "?confirm=shop"):
        asked = platform.call("DELETE", path + given)
        assert (asked.status_code, asked.json()["code"]) == (409, "confirmation_needed")
        assert "data (5.0 MB on" in asked.json()["detail"]
    plan = platform.call("DELETE", path + "?dry_run=true").json()["plan"]
    assert plan["confirm"] == "data"
    assert plan["actions"][0] | {"size_bytes": 5_000_000, "volume": "data"} == plan["actions"][0]
    assert platform.call("DELETE", path + "?confirm=data").json()["status"] == "removed"
    assert platform.call("GET", path).status_code == 404
    shop.refresh_from_db()
    assert shop.volume_node == ""
    assert lists(row.node_name)["volumes"] == [{"key": row.key, "keep": False}]
    tell(row.node_name, key=row.key, removed=True)
    assert lists(row.node_name)["volumes"] == []
    assert create(platform, shop).status_code == 201  # the name is free again
    kinds = set(Event.objects.filter(app_id=shop.pk, object_type="volume").values_list("kind", flat=True))
    assert kinds == {"volume.created", "volume.measured", "volume.removed", "volume.cleared"}


def test_deleting_an_app_with_a_volume_asks_and_its_node_clears_up_last(platform: Platform, shop: App) -> None:
    row = start(platform, shop)
    volume = Volume.objects.get(app=shop)
    assert row.node is not None
    node = row.node.name
    asked = platform.call("DELETE", f"/app/{shop.pk}")
    assert (asked.status_code, asked.json()["code"]) == (409, "confirmation_needed")
    plan = platform.call("DELETE", f"/app/{shop.pk}?dry_run=true").json()["plan"]
    assert [action["volume"] for action in plan["actions"] if action["action"] == "destroy_volume"] == ["data"]
    assert platform.call("DELETE", f"/app/{shop.pk}?confirm=shop").status_code == 202
    assert lists(node)["volumes"] == [{"key": volume.key, "keep": True}]  # it still runs
    platform.settle()
    platform.tick(3)
    assert not App.objects.filter(pk=shop.pk).exists()
    assert lists(node)["volumes"] == [{"key": volume.key, "keep": False}]
    tell(node, key=volume.key, removed=True)
    assert not Volume.objects.filter(pk=volume.pk).exists()


def test_another_org_and_a_reader_get_nowhere(platform: Platform, shop: App) -> None:
    stranger = make_token(make_org("others"))
    assert call(stranger, "GET", f"/app/{shop.pk}/volumes").status_code == 404
    assert call(stranger, "DELETE", f"/app/{shop.pk}/volumes/data?confirm=data").status_code == 404
    reader = make_token(platform.org, scopes=["volumes:read"])
    assert call(reader, "GET", f"/app/{shop.pk}/volumes/data").status_code == 200
    assert call(reader, "POST", f"/app/{shop.pk}/volumes", {"name": "x", "path": "/x"}).status_code == 403

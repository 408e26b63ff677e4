"""The app's own endpoints, without anything running."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from accounts.models import Org
from apps.models import App, ConfigRevision
from instances.models import Deployment
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_org, make_release, make_token
from releases.models import Release

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]


class Api:
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        body = "" if data is None else json.dumps(data)
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"Authorization": f"Bearer {self.token}", **extra}
        return Client().generic(method, path, body, content_type="application/json", headers=headers)

    def ok(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        answer = self(method, path, data, **headers)
        assert answer.status_code < 300, answer.content
        return answer.json()


@pytest.fixture
def org() -> Org:
    return make_org("home")


@pytest.fixture
def api(org: Org) -> Api:
    return Api(make_token(org))


def test_an_app_is_created_with_its_defaults(api: Api) -> None:
    app = api.ok("POST", "/app/create", {"name": "web"})
    assert (app["instances"], app["memory_mb"], app["cpu"], app["status"]) == (1, 512, 0.5, "created")
    assert app["health_check"]["type"] == "tcp"
    assert app["strategy"]["type"] == "rolling"
    assert app["urls"][0].startswith("http://web.localhost")
    by_name, by_id = api.ok("GET", "/app/web/info"), api.ok("GET", f"/app/{app['id']}/info")
    assert by_name["id"] == by_id["id"]
    assert by_name["org"]["name"] == "home"
    assert by_name["version"]["current"] is None
    assert by_name["instances_summary"] == {"desired": 1, "running": 0, "healthy": 0, "failed": 0}


def test_a_taken_name_is_refused_and_a_taken_host_name_gets_the_orgs(api: Api) -> None:
    api.ok("POST", "/app/create", {"name": "web"})
    assert api("POST", "/app/create", {"name": "web"}).json()["code"] == "app_exists"
    other = Api(make_token(make_org("other")))
    assert "web-other.localhost" in other.ok("POST", "/app/create", {"name": "web"})["urls"][0]


def test_a_secret_is_never_read_back_and_null_removes(api: Api) -> None:
    api.ok("POST", "/app/create", {"name": "web", "env": {"A": "1", "K": {"value": "hush", "secret": True}}})
    answer = api("PATCH", "/app/web/config", {"env": {"A": None, "B": "2", "K": {"secret": True}}})
    assert answer.status_code == 200, answer.content
    assert answer.json()["env"] == {"B": "2", "K": {"secret": True}}
    everything = str(list(Event.objects.values())) + str(list(ConfigRevision.objects.values()))
    assert "hush" not in everything
    assert b"hush" not in api("GET", "/app/web/info").content


def test_a_patch_answers_the_app_and_the_deployment_that_it_causes(api: Api, org: Org) -> None:
    app = make_app(org, "web")
    release = make_release(app)
    App.objects.filter(pk=app.pk)
    from consensus import gate

    with gate.maintenance("test"):
        App.objects.filter(pk=app.pk).update(desired_release=release.number)
    patched = api.ok("PATCH", "/app/web", {"env": {"GREETING": "hi"}, "description": "new"})
    assert patched["env"] == {"GREETING": "hi"}
    assert patched["description"] == "new"
    assert patched["deployment"]["kind"] == "config"
    assert Release.objects.filter(app=app).count() == 2
    assert Deployment.objects.filter(app=app).count() == 1
    plain = api.ok("PATCH", "/app/web", {"description": "only"})
    assert "deployment" not in plain
    assert Release.objects.filter(app=app).count() == 2


def test_a_patch_that_changes_nothing_causes_nothing(api: Api) -> None:
    app = api.ok("POST", "/app/create", {"name": "web", "env": {"A": "1"}})
    again = api.ok("PATCH", "/app/web", {"env": {"A": "1"}, "instances": 1})
    assert again["revision"] == app["revision"]


def test_a_stale_patch_is_refused(api: Api) -> None:
    api.ok("POST", "/app/create", {"name": "web"})
    api.ok("PATCH", "/app/web", {"description": "a"}, If_Match='"1"')
    assert api("PATCH", "/app/web", {"description": "b"}, If_Match='"1"').status_code == 412


def test_a_quota_is_kept(org: Org) -> None:
    operator = Api(make_token(org, platform=True))
    operator.ok("PATCH", "/orgs/home/quota", {"max_apps": 1, "max_instances": 3, "max_memory_mb": 1024})
    operator.ok("POST", "/app/create", {"name": "web", "instances": 2})
    assert operator("POST", "/app/create", {"name": "two"}).json()["code"] == "quota_exceeded"
    assert operator("POST", "/app/web/scale", {"instances": 4}).json()["code"] == "quota_exceeded"
    assert operator("PATCH", "/app/web", {"memory_mb": 600}).json()["code"] == "quota_exceeded"


def test_a_dry_run_shows_the_plan_and_commits_nothing(api: Api, org: Org) -> None:
    make_app(org, "web")
    answer = api.ok("POST", "/app/web/scale?dry_run=true", {"instances": 3})
    assert answer["dry_run"] is True
    assert "plan" in answer
    assert App.objects.get(name="web").instances == 1


def test_a_deleted_app_takes_no_more_changes(api: Api) -> None:
    api.ok("POST", "/app/create", {"name": "web"})
    assert api("DELETE", "/app/web").status_code == 202
    assert api("PATCH", "/app/web", {"description": "x"}).json()["code"] == "app_deleting"
    assert api.ok("GET", "/app/web/info")["status"] == "deleting"


@pytest.mark.parametrize(
    "call", ["info", "metrics", "instances", "logs", "config", "releases", "builds", "deployments"]
)
def test_another_orgs_app_does_not_exist(api: Api, call: str) -> None:
    foreign = make_app(make_org("other"), "theirs")
    assert api("GET", f"/app/{foreign.pk}/{call}").status_code == 404
    assert api("GET", f"/app/theirs/{call}").status_code == 404
    assert api("PATCH", f"/app/{foreign.pk}", {"description": "x"}).status_code == 404
    assert api("DELETE", f"/app/{foreign.pk}").status_code == 404


def test_the_list_costs_the_same_queries_for_any_number_of_apps(
    api: Api, org: Org, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        make_app(org, f"app-x{number}")
    with django_assert_max_num_queries(6):
        assert len(api.ok("GET", "/app")["items"]) == 20


def test_the_schema_is_valid_and_names_every_public_path() -> None:
    schema = Client().get("/schema").json()
    assert "/app/create" in schema["paths"]
    assert "/app/{app}/instances/{instance_id}/logs" in schema["paths"]
    assert not any(path.startswith(("/agent", "/internal")) for path in schema["paths"])


def test_the_charset_of_a_body_does_not_hide_the_dry_run(api: Api) -> None:
    api.ok("POST", "/app/create", {"name": "web"})
    for charset in ("utf-16", "utf-32-be", "no-such"):
        answer = Client().generic(
            "POST", "/app/web/stop?dry_run=true", b"", content_type=f"application/json; charset={charset}",
            headers={"Authorization": f"Bearer {api.token}"},
        )  # fmt: skip
        assert answer.status_code == 200
        assert answer.json()["dry_run"] is True
    assert App.objects.get(name="web").desired_state == "running"


def test_options_names_the_methods(api: Api) -> None:
    answer = api("OPTIONS", "/app/create")
    assert (answer.status_code, answer["Allow"]) == (200, "POST, OPTIONS")


def test_the_next_page_of_events_keeps_the_filter(api: Api) -> None:
    for name in ("one", "two"):
        api.ok("POST", "/app/create", {"name": name})
        for number in range(3):
            api.ok("PATCH", f"/app/{name}", {"description": str(number)})
    page = api.ok("GET", "/events?app=one&since=0&limit=2")
    seen = page["items"]
    while page["next"]:
        page = api.ok("GET", page["next"])
        seen += page["items"]
    assert len(seen) == 4
    assert {event["app_id"] for event in seen} == {App.objects.get(name="one").pk}


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/admin/login/"])
def test_a_page_may_ask_no_other_host(path: str) -> None:
    policy = Client().get(path)["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_info_shows_a_change_at_once_and_a_gone_app_not_at_all(api: Api) -> None:
    app = api.ok("POST", "/app/create", {"name": "web"})
    assert api.ok("GET", "/app/web/info")["description"] == ""
    api.ok("PATCH", "/app/web", {"description": "new", "env": {"A": "1"}, "labels": {"x": "y"}})
    shown = api.ok("GET", f"/app/{app['id']}/info")
    assert (shown["description"], shown["env"], shown["labels"]) == ("new", {"A": "1"}, {"x": "y"})
    api.ok("PATCH", "/app/web", {"name": "site"})
    assert api("GET", "/app/web/info").status_code == 404
    assert api.ok("GET", "/app/site/info")["urls"][0].startswith("http://site.")
    from consensus import gate

    with gate.maintenance("test"):
        ConfigRevision.objects.filter(app_id=app["id"]).delete()
        App.objects.filter(pk=app["id"]).delete()
    assert api("GET", f"/app/{app['id']}/info").status_code == 404

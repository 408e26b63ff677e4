"""Every page opens, shows no secret, takes few queries; every button goes through the API with the session's rights."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.models import ConfigRevision
from consensus import gate
from consensus.fake import FakeLease
from instances.models import Deployment, Volume
from omni.kernel import clock
from omni.kernel.models import Event
from omni.pages.actions import ACTIONS
from omni.testing.factories import (
    make_app,
    make_build,
    make_config,
    make_deployment,
    make_instance,
    make_node,
    make_org,
    make_release,
    make_token,
    make_user,
)
from services.models import Alert

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]
MOST_QUERIES = 20


@pytest.fixture
def console() -> Client:
    client = Client()
    client.force_login(make_user("boss", superuser=True), backend="accounts.console_login.ConsoleBackend")
    return client


@pytest.fixture
def home() -> dict[str, Any]:
    org = make_org("home")
    app = make_app(org, "web", env={"K": "hush-hush"}, instances=3, desired_release=1, status="degraded")
    release = make_release(app)
    make_config(app, 2, env={"K": "hush-hush-too"})
    make_release(app, "2")
    build = make_build(app, "3", status="building", steps=[{"name": "fetch", "status": "running"}])
    deployment = make_deployment(app, release, status="rolling", active_key=app.pk)
    node = make_node(facts={"runtimes": ["process"]})
    instance = make_instance(app, release, node, deployment=deployment)
    crashed = {"code": 137, "oom": True, "lines": ["the end"]}
    make_instance(app, release, node, slot=1, status="crashed", restarts=5, last_exit=crashed)
    make_token(org)
    with gate.maintenance("test"):
        ConfigRevision.objects.update(secret_keys=["K"])
    return {"app": app, "build": build, "deployment": deployment, "instance": instance, "node": node, "org": org}


def paths(home: dict[str, Any]) -> list[str]:
    app = f"/admin/app/{home['app'].pk}/"
    return [
        "/admin/", "/admin/app/", "/admin/app/?q=w&state=degraded", app, f"{app}logs/", f"{app}events/",
        f"{app}config/", f"{app}releases/", f"{app}releases/?from=1&to=2", f"{app}builds/",
        f"{app}builds/{home['build'].pk}/", f"{app}deployments/",
        f"{app}deployments/{home['deployment'].pk}/", f"{app}instances/{home['instance'].pk}/",
        "/admin/nodes/", f"/admin/nodes/{home['node'].pk}/", "/admin/cluster/", "/admin/events/",
        "/admin/service/", "/admin/service/new/", "/admin/alerts/", "/admin/silences/",
        "/admin/events/?q=x&app=web", "/admin/orgs/", f"/admin/orgs/{home['org'].pk}/",
        "/admin/tokens/", "/admin/account/", "/admin/tables/",
        "/admin/data/platform/", f"/admin/data/app/{home['app'].pk}/?window=24h",
        f"/admin/data/app/{home['app'].pk}/instances/{home['instance'].pk}/", f"/admin/data/nodes/{home['node'].pk}/",
    ]  # fmt: skip


@pytest.mark.slow
def test_every_page_opens_with_few_queries_and_no_secret(console: Client, home: dict[str, Any]) -> None:
    for path in paths(home):
        with (
            CaptureQueriesContext(connections["default"]) as asked,
            CaptureQueriesContext(connections["telemetry"]) as more,
        ):
            answer = console.get(path)
        assert answer.status_code == 200, path
        assert len(asked) + len(more) <= MOST_QUERIES, [query["sql"] for query in asked]
        assert b"hush-hush" not in answer.content, path
        assert b" style=" not in answer.content, "inline styles are not allowed by the content policy"
        assert not re.search(rb"<script(?![^>]* src=)", answer.content), "nor are inline scripts"


def test_a_page_is_only_its_middle_when_it_is_refreshed_and_nothing_when_it_is_the_same(
    console: Client, home: dict[str, Any]
) -> None:
    path = f"/admin/app/{home['app'].pk}/events/"
    part = console.get(path, headers={"X-Live": "1"})
    assert b"<html" not in part.content
    same = console.get(path, headers={"X-Live": "1", "If-None-Match": part["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    make_instance(home["app"], slot=2, status="pending")
    assert console.get(path, headers={"X-Live": "1", "If-None-Match": part["ETag"]}).status_code == 200


def test_the_app_page_says_what_is_the_matter(console: Client, home: dict[str, Any]) -> None:
    page = console.get(f"/admin/app/{home['app'].pk}/").content.decode()
    assert "1 of 3 healthy; slot 1 restarted 5 times in 10 minutes: exit 137, out of memory." in page


@pytest.mark.slow
def test_open_alerts_are_told_on_the_overview_and_closed_ones_are_not(console: Client) -> None:
    with gate.maintenance("test"):
        for number, (name, key) in enumerate([("db", 1), ("cache", None)]):
            Alert.objects.create(service_name=name, active_key=key, severity="critical", detail=f"number {number}",
                                 affected=["shop"], opened_at=clock.now())  # fmt: skip
    page = console.get("/admin/").content.decode()
    assert "critical, open: number 0 Also: shop." in page
    assert "number 1" not in page


def test_what_is_not_there_is_a_page_that_says_so(console: Client) -> None:
    for path in ("/admin/app/4711/", "/admin/nodes/nowhere/", "/admin/orgs/none/"):
        answer = console.get(path)
        assert answer.status_code == 404
        assert b"There is no such" in answer.content


def test_without_a_session_every_page_leads_to_the_log_in(home: dict[str, Any]) -> None:
    for path in paths(home):
        answer = Client().get(path)
        assert answer.status_code == 302, path
        assert answer["Location"].startswith("/admin/login/"), path


@pytest.fixture
def developer(home: dict[str, Any]) -> Client:
    client = Client()
    client.force_login(make_user("dev", org=home["org"]), backend="accounts.console_login.ConsoleBackend")
    return client


@pytest.mark.slow
def test_a_developer_sees_and_changes_what_is_the_orgs(developer: Client, home: dict[str, Any]) -> None:
    foreign = make_app(make_org("elsewhere"), "secret-plans")
    for path in paths(home):
        platforms = path.startswith(("/admin/nodes/", "/admin/cluster/", "/admin/data/platform/", "/admin/data/nodes/",
                                    "/admin/service/", "/admin/alerts/", "/admin/silences/"))  # fmt: skip
        assert developer.get(path).status_code == (403 if platforms else 200), path
        assert b"secret-plans" not in developer.get(path).content, path
    assert developer.get(f"/admin/app/{foreign.pk}/").status_code == 404
    assert ask(developer, "stop", app=foreign.pk, name="x", step="do").status_code == 404
    assert ask(developer, "drain", node=home["node"].pk, name="n", step="do").status_code == 403
    assert ask(developer, "scale", app=home["app"].pk, name="web", instances=2, step="do").json()["ok"]


def test_a_viewer_has_no_buttons_and_may_press_none(home: dict[str, Any]) -> None:
    client = Client()
    user = make_user("eyes", org=home["org"], role="viewer")
    client.force_login(user, backend="accounts.console_login.ConsoleBackend")
    page = client.get(f"/admin/app/{home['app'].pk}/").content
    assert b"/admin/do/" not in page
    assert ask(client, "stop", app=home["app"].pk, name="web", step="do").status_code == 403


def ask(client: Client, action: str, **form: Any) -> Any:
    return client.post(f"/admin/do/{action}/", form, headers={"X-Console": "1"})


def test_a_button_shows_what_would_happen_and_then_does_it_once(console: Client, home: dict[str, Any]) -> None:
    app = home["app"]
    asked = ask(console, "scale", app=app.pk, name="web", instances=4)
    assert asked.status_code == 200
    page = asked.content.decode()
    assert "Run 4 instances of web?" in page
    assert "Slot 3 of version 1 starts" in page
    app.refresh_from_db()
    assert app.instances == 3, "asking changes nothing"
    form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page))
    first = ask(console, "scale", **form)
    again = ask(console, "scale", **form)
    app.refresh_from_db()
    assert app.instances == 4
    assert first.json()["said"].startswith("web is to have 4 instances. Deployment ")
    assert again.json() == first.json()
    assert Event.objects.filter(kind="app.scale_wished").count() == 1
    event = Event.objects.get(kind="app.scale_wished")
    assert (event.actor, event.cause) == ("user:boss", f"POST /app/{app.pk}/scale")


def test_a_deployment_is_paused_resumed_promoted_and_cancelled_by_button(console: Client, home: dict[str, Any]) -> None:
    app, row = home["app"], home["deployment"]
    whose = {"app": app.pk, "deployment": row.pk, "name": "web", "step": "do"}
    with gate.maintenance("test"):
        Deployment.objects.filter(pk=row.pk).update(
            strategy={"type": "canary", "canary_percent": 20}, new_percent=20, baking_since=clock.now()
        )

    def press(action: str) -> Deployment:
        answer = ask(console, action, **whose)
        assert answer.status_code == 200, answer.content.decode()
        return Deployment.objects.get(pk=row.pk)

    assert press("pause").paused_at is not None
    assert press("resume").paused_at is None
    assert press("promote").promoted_at is not None
    assert press("cancel").status == "cancelled"
    kinds = set(Event.objects.filter(object_type="deployment", object_id=row.pk).values_list("kind", flat=True))
    assert {"deployment.paused", "deployment.resumed"} <= kinds


def test_without_javascript_the_same_form_is_a_page_and_a_message(console: Client, home: dict[str, Any]) -> None:
    app, back = home["app"], f"/admin/app/{home['app'].pk}/"
    page = console.post("/admin/do/stop/", {"app": app.pk, "name": "web", "back": back})
    assert b"<html" in page.content
    answer = console.post("/admin/do/stop/", {"app": app.pk, "name": "web", "back": back, "step": "do"}, follow=True)
    assert answer.redirect_chain == [(back, 302)]
    assert b"web stops." in answer.content


def test_a_refusal_says_what_is_wrong_and_that_nothing_happened(console: Client, home: dict[str, Any]) -> None:
    answer = ask(console, "restart", app=4711, name="x")
    assert answer.status_code == 404
    assert b"There is no such app." in answer.content
    assert b"Nothing was changed." in answer.content
    assert ask(console, "scale", app=home["app"].pk, instances="many").status_code == 422
    assert ask(console, "scale", app="../../x", instances="1").status_code == 422
    assert ask(console, "no-such-button").status_code == 404


def test_an_app_is_deleted_only_when_its_name_was_typed(console: Client, home: dict[str, Any]) -> None:
    app = home["app"]
    wrong = ask(console, "delete", app=app.pk, name="web", step="do", typed="webb")
    assert wrong.status_code == 422
    right = ask(console, "delete", app=app.pk, name="web", step="do", typed="web")
    assert right.json()["to"] == "/admin/app/"
    app.refresh_from_db()
    assert app.desired_state == "deleted"


def test_an_app_with_a_volume_is_deleted_after_a_page_that_says_what_is_lost(
    console: Client, home: dict[str, Any]
) -> None:
    app = home["app"]
    with gate.maintenance("test"):
        Volume.objects.create(
            key="k" * 24, app=app, app_number=app.pk, org_number=app.org_id, name="data", path="/data",
            node_name="n1", size_bytes=12_300_000, created_by="test", created_at=clock.now(),
        )  # fmt: skip
    asked = ask(console, "delete", app=app.pk, name="web")
    assert b"The data of volume data, 12.3 MB, on n1 is destroyed for good" in asked.content
    lied = ask(console, "delete", app=app.pk, name="other", step="do", typed="other")  # not the app's own name
    assert lied.status_code == 409
    app.refresh_from_db()
    assert app.desired_state != "deleted"
    right = ask(console, "delete", app=app.pk, name="web", step="do", typed="web")
    assert right.json()["to"] == "/admin/app/"
    app.refresh_from_db()
    assert app.desired_state == "deleted"


def test_a_follower_that_is_asked_by_mistake_answers_like_the_api(
    console: Client, home: dict[str, Any], lease: FakeLease
) -> None:
    """The front then asks the next leader (`omni.front.forwarding.was_refused`)."""
    lease.lose("127.0.0.1:8001")
    answer = ask(console, "stop", app=home["app"].pk, name="web", step="do")
    assert (answer.status_code, answer["Content-Type"]) == (503, "application/problem+json")
    assert answer["Omni-Outcome"] == "not-applied"


def test_a_form_from_elsewhere_is_refused(home: dict[str, Any]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("chief", superuser=True), backend="accounts.console_login.ConsoleBackend")
    assert client.post("/admin/do/stop/", {"app": home["app"].pk, "step": "do"}).status_code == 403
    home["app"].refresh_from_db()
    assert home["app"].desired_state == "running"


def test_a_get_never_presses_a_button(console: Client, home: dict[str, Any]) -> None:
    for name in ACTIONS:
        assert console.get(f"/admin/do/{name}/").status_code == 404


def test_where_a_form_leads_back_to_is_in_the_console(console: Client, home: dict[str, Any]) -> None:
    for bad in ("https://elsewhere.example/", "//elsewhere.example/admin/", "/app/1/info", "/admin/do/stop/"):
        form = {"app": home["app"].pk, "name": "web", "step": "do", "back": bad}
        location = console.post("/admin/do/restart/", form)["Location"]
        assert location == "/admin/" or (location.startswith("/admin/") and "do" not in location), bad


def test_a_token_is_shown_once(console: Client, home: dict[str, Any]) -> None:
    answer = ask(console, "create-token", name="ci", org="home", role="developer")
    secret = re.search(rb"omni_[a-z0-9]{8}_[A-Za-z0-9_-]{43}", answer.content)
    assert secret is not None, answer.content
    assert secret[0] not in console.get("/admin/tokens/").content


def test_every_button_names_a_call_that_the_api_has(home: dict[str, Any]) -> None:
    from django.urls import resolve

    for action in ACTIONS.values():
        given = dict.fromkeys(action.references, "1")
        view = resolve(action.path.format(**given)).func
        assert action.method.lower() in view.actions, action.name  # type: ignore[attr-defined]


def test_the_plain_tables_stay_reachable(console: Client, home: dict[str, Any]) -> None:
    page = console.get("/admin/tables/").content.decode()
    for model in admin.site._registry:
        assert f"/admin/{model._meta.app_label}/{model._meta.model_name}/" in page


def test_ones_own_password_is_changed_by_the_form_and_the_session_goes_on() -> None:
    make_user("ines", org=make_org("hers"), password="the old one, long")
    client = Client()
    client.force_login(User.objects.get(username="ines"), backend="accounts.console_login.ConsoleBackend")
    form = {"current": "the old one, long", "password": "quite another one", "again": "quite another two"}
    assert b"typed in two ways" in client.post("/admin/do/change-password/", form, headers={"X-Console": "1"}).content
    done = client.post("/admin/do/change-password/", form | {"again": form["password"]}, headers={"X-Console": "1"})
    assert done.json()["to"] == "/admin/account/"
    assert b"Your password is changed." in client.get("/admin/account/").content


def test_a_node_says_what_waits_and_why_not_here(console: Client, home: dict[str, Any]) -> None:
    placement = {"verdicts": [{"node": home["node"].name, "fits": False, "reason": "64 MiB are free, 128 wanted"}]}
    make_instance(home["app"], slot=2, status="pending", placement=placement)
    page = console.get(f"/admin/nodes/{home['node'].pk}/").content.decode()
    assert "64 MiB are free, 128 wanted" in page


def test_what_is_no_page_is_said_to_be_none(console: Client) -> None:
    found = console.get("/admin/nowhere/")
    assert (found.status_code, b"There is no such page." in found.content) == (404, True)
    assert console.get("/admin/app")["Location"] == "/admin/app/"
    assert console.get("/admin/events")["Location"] == "/admin/events/"
    assert Client().get("/admin/nowhere/").status_code == 302

"""The pages of services and alerts: what they show, and what their buttons do."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest
from django.db import connections
from django.http import QueryDict
from django.test import Client
from django.test.utils import CaptureQueriesContext

from consensus import gate
from instances.telemetry import statements as sql
from omni.kernel import clock
from omni.kernel.errors import InvalidInput
from omni.kernel.models import Event
from omni.pages import services_form, services_history
from omni.pages.services_history import Piece
from omni.testing.factories import make_app, make_org, make_service, make_user
from services.models import Alert, RemedyRun, Service, Silence

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]
_SPAN = ("service_id", "from_us", "node", "at_us", "outcome", "checks", "latency_ms", "latency_ms_max", "detail")


@pytest.fixture
def console() -> Client:
    client = Client()
    client.force_login(make_user("boss", superuser=True), backend="accounts.console_login.ConsoleBackend")
    return client


@pytest.fixture
def db() -> Service:
    remedy = {"type": "restart_app", "app": make_app(make_org("home"), "web").pk, "after_s": 0.0, "backoff_s": 60.0,
              "max_per_hour": 3}  # fmt: skip
    row = make_service("db", state="unhealthy", detail="failing at 2 of 3: refused", owner="ops", remedy=remedy)
    make_service("shop", state="unhealthy", depends_on=["db"])
    now = clock.now()
    us = clock.to_us(now) - 60_000_000
    sql.insert("services_checkspan", _SPAN, [
        (row.pk, us, "a", us + 30_000_000, "failing", 3, None, None, "refused"),
        (row.pk, us, "b", us + 30_000_000, "passing", 3, 1.5, 2.0, "connected"),
    ])  # fmt: skip
    with gate.maintenance("test"):
        Alert.objects.create(service=row, service_name="db", active_key=row.pk, severity="critical", detail="refused",
                             affected=["shop"], opened_at=now)  # fmt: skip
        RemedyRun.objects.create(service=row, type="restart_app", status="failed", detail="no node", reason="refused",
                                 started_at=now, deadline_at=now, finished_at=now)  # fmt: skip
        Silence.objects.create(pattern="cache-*", reason="moving", starts_at=now, created_at=now,
                               created_by="user:boss", ends_at=now + dt.timedelta(hours=1))  # fmt: skip
    return row


def ask(client: Client, action: str, **form: Any) -> Any:
    return client.post(f"/admin/do/{action}/", form, headers={"X-Console": "1"})


def confirmed(client: Client, action: str, **form: Any) -> Any:
    """Asks, and sends the form of the question as it came."""
    page = ask(client, action, **form)
    assert page.status_code == 200, page.content.decode()
    kept = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.content.decode()))
    return ask(
        client, action, **{**kept, **({"typed": form["name"]} if "Type <strong>" in page.content.decode() else {})}
    )


@pytest.mark.slow
def test_every_page_about_services_opens_with_few_queries_and_no_inline_code(console: Client, db: Service) -> None:
    for number in range(60):
        make_service(f"s{number}", state="healthy")
    paths = ["/admin/service/", "/admin/service/?q=d&state=unhealthy&source=own", f"/admin/service/{db.pk}/",
             f"/admin/service/{db.pk}/?window=7d", f"/admin/service/{db.pk}/edit/", "/admin/alerts/",
             "/admin/alerts/?status=all", "/admin/silences/", "/admin/"]  # fmt: skip
    paths += [f"/admin/service/new/?type={kind}" for kind in services_form.KINDS]
    for path in paths:
        with (
            CaptureQueriesContext(connections["default"]) as asked,
            CaptureQueriesContext(connections["telemetry"]) as more,
        ):
            answer = console.get(path)
        assert answer.status_code == 200, path
        assert len(asked) + len(more) <= 20, [query["sql"] for query in asked]
        assert b" style=" not in answer.content, path
        assert Client().get(path).status_code == 302, path
    assert console.get("/admin/service/4711/").status_code == 404


def test_the_list_shows_the_worst_first_and_goes_on_where_it_stopped(console: Client, db: Service) -> None:
    for number in range(60):
        make_service(f"s{number:02}", state="healthy")
    make_service("wobbly", state="degraded", flapping=True)
    first = console.get("/admin/service/").content.decode()
    names = re.findall(r'class="main"[^>]*>([^<]+)<', first)
    assert names[:4] == ["db", "shop", "wobbly", "s00"]
    assert "flapping" in first
    further = re.search(r'href="(\?after=[^"]+)"', first)
    assert further is not None
    rest = re.findall(
        r'class="main"[^>]*>([^<]+)<',
        console.get("/admin/service/" + further[1].replace("&amp;", "&")).content.decode(),
    )
    assert len({*names, *rest}) == 63
    assert len(names) + len(rest) == 63


def test_the_page_of_a_service_tells_state_checks_alert_remedy_and_what_needs_it(console: Client, db: Service) -> None:
    page = console.get(f"/admin/service/{db.pk}/").content.decode()
    assert "Unhealthy: failing at 2 of 3: refused." in page
    assert re.findall(r'aria-label="(\d of \d) checks failed"', page) == ["3 of 3", "0 of 3"]
    assert "restarts web, at most 3 times an hour" in page
    assert "no node" in page
    assert "tries did not help" in page
    shop = Service.objects.get(name="shop")
    assert f'href="/admin/service/{shop.pk}/">shop' in page
    below = console.get(f"/admin/service/{shop.pk}/").content.decode()
    assert "whose alert speaks for it" in below


def test_alerts_are_shown_with_what_fails_because_of_them_and_acknowledged(console: Client, db: Service) -> None:
    page = console.get("/admin/alerts/").content.decode()
    assert "1 that depend on it fail with it" in page
    assert "Nobody is told of alerts" in page
    alert = Alert.objects.get()
    done = ask(console, "acknowledge-alert", alert=alert.pk, name="db", note="on it")
    assert done.json()["said"] == "The alert of db is acknowledged."
    alert.refresh_from_db()
    assert (alert.status, alert.acknowledged_by, alert.note) == ("acknowledged", "user:boss", "on it")
    assert Event.objects.get(kind="alert.acknowledged").cause == f"POST /alerts/{alert.pk}/ack"
    again = ask(console, "acknowledge-alert", alert=alert.pk, name="db")
    assert again.status_code == 409


def test_a_silence_is_made_for_a_while_and_ended(console: Client, db: Service) -> None:
    asked = ask(console, "create-silence", pattern="db", reason="moving", minutes="60").content.decode()
    assert re.search(r"Tell nobody of alerts of services like db until \d\d \w+ \d\d:\d\d UTC\?", asked)
    assert confirmed(console, "create-silence", pattern="db", reason="moving", minutes="60").json()["ok"]
    row = Silence.objects.get(pattern="db")
    assert 3500 < (row.ends_at - clock.now()).total_seconds() < 3700
    alert = Alert.objects.get()
    assert "silenced until" in console.get("/admin/alerts/").content.decode()
    assert confirmed(console, "silence-alert", alert=alert.pk, name="db", reason="x", minutes="15").json()["ok"]
    assert confirmed(console, "end-silence", silence=row.pk, pattern="db").json()["said"] == "The silence is over."
    row.refresh_from_db()
    assert row.ends_at <= clock.now()
    assert ask(console, "create-silence", pattern="db", reason="x", minutes="7").status_code == 422


def test_a_service_is_registered_changed_maintained_and_removed_by_its_forms(console: Client, db: Service) -> None:
    made = ask(console, "create-service", type="http", name="api", check_url="http://10.0.0.5/health", interval_s="2",
               timeout_s="2", depends_on="db, shop", remedy="webhook", remedy_url="http://10.0.0.8/mend",
               remedy_secret="hush-hush", remedy_max_per_hour="5", severity="critical")  # fmt: skip
    assert made.json() == {"ok": True, "said": "api is watched from now on.", "to": "/admin/service/", "follow": ""}
    row = Service.objects.get(name="api")
    assert (row.check_spec["url"], row.interval_s, row.depends_on) == ("http://10.0.0.5/health", 2.0, ["db", "shop"])
    page = console.get(f"/admin/service/{row.pk}/edit/").content.decode()
    assert "hush" not in page
    form = {name: value.replace("&#x27;", "'") for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page)}
    form |= {"severity": "critical", "check_method": "GET", "remedy": "webhook"}
    nothing = ask(console, "change-service", **form)
    assert nothing.status_code == 422, nothing.content.decode()
    changed = confirmed(console, "change-service", **{**form, "interval_s": "5", "check_contains": "fine"})
    assert changed.json()["said"] == "api is changed."
    row.refresh_from_db()
    assert (row.interval_s, row.check_spec["contains"], row.remedy["max_per_hour"]) == (5.0, "fine", 5)
    assert row.remedy_secret
    assert confirmed(console, "begin-maintenance", service=row.pk, name="api", maintenance="true", minutes="60").json()[
        "ok"
    ]
    row.refresh_from_db()
    assert row.maintenance_until is not None
    assert ask(console, "end-maintenance", service=row.pk, name="api", maintenance="false").json()["ok"]
    assert ask(console, "delete-service", service=row.pk, name="api", step="do", typed="apx").status_code == 422
    assert confirmed(console, "delete-service", service=row.pk, name="api").json()["to"] == "/admin/service/"
    assert not Service.objects.filter(name="api").exists()


def test_what_the_api_refuses_the_form_refuses_and_says_where(console: Client, db: Service) -> None:
    answer = ask(console, "create-service", type="tcp", name="x", check_host="169.254.169.254", check_port="80")
    assert answer.status_code == 422
    assert b"/check/host" in answer.content
    assert ask(console, "create-service", type="tcp", name="x", check_port="many").status_code == 422
    assert not Service.objects.filter(name="x").exists()


def test_a_part_of_the_platform_has_its_severity_changed_and_no_more(console: Client) -> None:
    row = make_service("platform:database", source="platform", check={"type": "part", "part": "database"})
    page = console.get(f"/admin/service/{row.pk}/edit/").content.decode()
    assert "check_" not in page
    answer = confirmed(console, "change-service", service=row.pk, name=row.name, type="part", severity="info",
                       was_severity="critical")  # fmt: skip
    assert answer.json()["ok"]
    row.refresh_from_db()
    assert row.severity == "info"


def test_members_of_an_org_see_and_press_nothing_of_it(db: Service) -> None:
    client = Client()
    client.force_login(make_user("dev", org=make_org("far")), backend="accounts.console_login.ConsoleBackend")
    for path in ("/admin/service/", f"/admin/service/{db.pk}/", "/admin/alerts/", "/admin/silences/"):
        assert client.get(path).status_code == 403, path
    assert ask(client, "delete-service", service=db.pk, name="db", step="do", typed="db").status_code == 403
    assert b"/admin/alerts/" not in client.get("/admin/").content


def test_a_strip_shows_what_each_check_came_to_and_leaves_gaps() -> None:
    def piece(at: int, until: int, failing: int = 0) -> Piece:
        return Piece(at * 1_000_000, until * 1_000_000, failing, 0, 1, 1.0)

    strip = services_history.drawn("a", [piece(0, 30), piece(30, 59, failing=1), piece(120, 180)], 240_000_000,
                                   240_000_000, 10.0)  # fmt: skip
    assert [(one.x, one.x + one.width, one.tone) for one in strip.segments] == [
        (0, 30, "ok"), (30, 70, "bad"), (120, 191, "ok"),
    ]  # fmt: skip
    assert (strip.checks, strip.failing, strip.latency_ms) == (3, 1, 1.0)
    assert len(strip.course.split()) == 3


def test_a_form_without_numbers_where_numbers_belong_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidInput) as refused:
        services_form.registered(QueryDict("type=tcp&check_port=1.5"))
    assert refused.value.errors[0].pointer == "/check/port"
    with pytest.raises(InvalidInput):
        services_form.registered(QueryDict('type=exec&check_command="open'))

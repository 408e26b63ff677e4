"""`/services`: what can be registered, changed, removed; every mistake is named by its place."""

from __future__ import annotations

import pytest
from django.conf import settings

from omni.api import parts
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_org, make_service, make_token
from omni.testing.inline_probe import Inline
from services import definitions, standings
from services.conftest import Cluster, call
from services.models import Service

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]

TCP = {"type": "tcp", "host": "10.0.0.9", "port": 3306}


def problems(answer) -> dict[str, str]:
    return {one["pointer"]: one["code"] for one in answer.json()["errors"]}


def test_a_service_is_registered_read_changed_and_removed(cluster):
    made = cluster.call("POST", "/services", {"name": "db", "check": TCP, "severity": "critical", "owner": "ops"})
    assert made.status_code == 201, made.content
    body = made.json()
    assert (body["state"], body["check"], body["interval_s"]) == ("unknown", TCP, 10.0)
    for ref in (body["id"], "db"):
        assert cluster.call("GET", f"/services/{ref}").json()["name"] == "db"
    changed = cluster.call("PATCH", "/services/db", {"interval_s": 20, "check": {"port": 3307}},
                           **{"If-Match": made.headers["ETag"]})  # fmt: skip
    assert changed.status_code == 200, changed.content
    assert (changed.json()["interval_s"], changed.json()["check"]["port"]) == (20.0, 3307)
    assert Service.objects.get().definition == 2
    stale = cluster.call("PATCH", "/services/db", {"interval_s": 30}, **{"If-Match": made.headers["ETag"]})
    assert stale.status_code == 412
    assert cluster.call("DELETE", "/services/db").status_code == 204
    assert cluster.call("GET", "/services/db").status_code == 404
    kinds = list(Event.objects.order_by("key").values_list("kind", flat=True))
    assert kinds == ["service.registered", "service.updated", "service.removed"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "A b", "check": TCP}, {"/name": "invalid"}),
        ({"name": "a"}, {"/check": "required"}),
        ({"name": "a", "check": {"type": "icmp"}}, {"/check": "invalid"}),
        ({"name": "a", "check": {**TCP, "port": 0}}, {"/check/port": "invalid"}),
        ({"name": "a", "check": {**TCP, "extra": 1}}, {"/check/extra": "unknown_field"}),
        ({"name": "a", "check": TCP, "intervall_s": 1}, {"/intervall_s": "unknown_field"}),
        ({"name": "a", "check": TCP, "interval_s": 1, "timeout_s": 5}, {"/": "invalid"}),
        ({"name": "a", "check": {"type": "http", "url": "ftp://h/"}}, {"/check": "invalid"}),
        ({"name": "a", "check": {"type": "http", "url": "http://u:p@h/"}}, {"/check": "invalid"}),
        ({"name": "a", "check": {**TCP, "host": "127.0.0.1"}}, {"/check/host": "address_refused"}),
        ({"name": "a", "check": {"type": "http", "url": "http://169.254.169.254/"}}, {"/check/url": "address_refused"}),
        ({"name": "a", "check": {"type": "disk", "path": "/"}}, {"/check": "invalid"}),
        ({"name": "a", "check": TCP, "depends_on": ["nothing"]}, {"/depends_on/0": "not_found"}),
        ({"name": "a", "check": TCP, "depends_on": ["a"]}, {"/depends_on/0": "circle"}),
        ({"name": "a", "check": TCP, "remedy": {"type": "restart_app", "app": "none"}}, {"/remedy/app": "not_found"}),
        ({"name": "a", "check": TCP, "remedy": {"type": "run_task", "app": "none", "command": ["x" * 3000] * 2}},
         {"/remedy/command": "invalid", "/remedy/app": "not_found"}),
        ({"name": "a", "check": TCP, "remedy": {"type": "run_task", "app": 1}}, {"/remedy/command": "required"}),
        ([], {"/": "invalid"}),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_is_refused_and_named(cluster, body, expected):
    answer = cluster.call("POST", "/services", body)
    assert answer.status_code == 422, answer.content
    assert problems(answer) == expected
    assert not Service.objects.exists()


def test_the_default_time_out_goes_with_the_interval_and_a_named_one_is_kept(cluster):
    made = cluster.call("POST", "/services", {"name": "a", "check": TCP, "interval_s": 2})
    assert (made.status_code, made.json()["timeout_s"]) == (201, 2.0), made.content
    assert cluster.call("PATCH", "/services/a", {"interval_s": 1}).json()["timeout_s"] == 1.0
    assert cluster.call("PATCH", "/services/a", {"interval_s": 30}).json()["timeout_s"] == 3.0
    assert cluster.call("PATCH", "/services/a", {"timeout_s": 20}).json()["timeout_s"] == 20.0
    refused = cluster.call("PATCH", "/services/a", {"interval_s": 10})
    assert (refused.status_code, problems(refused)) == (422, {"/": "invalid"})


def test_dependencies_make_no_circle_and_keep_what_is_needed(cluster):
    for name, on in (("a", []), ("b", ["a"]), ("c", ["b"])):
        answer = cluster.call("POST", "/services", {"name": name, "check": TCP, "depends_on": on})
        assert answer.status_code == 201
    assert problems(cluster.call("PATCH", "/services/a", {"depends_on": ["c"]})) == {"/depends_on/0": "circle"}
    refused = cluster.call("DELETE", "/services/b")
    assert (refused.status_code, refused.json()["code"]) == (409, "service_needed")
    taken = cluster.call("POST", "/services", {"name": "a", "check": TCP})
    assert (taken.status_code, taken.json()["code"]) == (409, "service_exists")
    renamed = cluster.call("PATCH", "/services/a", {"name": "z"})
    assert (renamed.status_code, renamed.json()["code"]) == (409, "service_name_fixed")


def test_the_secret_of_a_remedy_is_kept_sealed_and_never_shown(cluster):
    remedy = {"type": "webhook", "url": "http://10.0.0.8/mend", "secret": "hush-hush"}
    made = cluster.call("POST", "/services", {"name": "a", "check": TCP, "remedy": remedy})
    assert made.json()["remedy"]["secret"] == {"secret": True}
    changed = cluster.call("PATCH", "/services/a", {"remedy": {"max_per_hour": 5}})
    assert (changed.status_code, changed.json()["remedy"]["max_per_hour"]) == (200, 5)
    assert changed.json()["remedy"]["secret"] == {"secret": True}
    row = Service.objects.values().get()
    assert "hush" not in str(row)
    assert row["remedy_secret"]
    assert "hush" not in str(list(Event.objects.values_list("change", flat=True)))
    assert cluster.call("PATCH", "/services/a", {"remedy": None}).json()["remedy"] is None
    assert Service.objects.get().remedy_secret == ""


def test_a_remedy_names_its_app_by_id_or_name(cluster):
    app = make_app(cluster.org, "web")
    made = cluster.call(
        "POST", "/services", {"name": "a", "check": TCP, "remedy": {"type": "restart_app", "app": "web"}}
    )
    assert made.json()["remedy"]["app"] == app.pk
    far, twice = make_app(make_org("far"), "mender"), [make_app(make_org(), "twin"), make_app(make_org("b"), "twin")]
    for number, (ref, found) in enumerate([("mender", far), ("far/mender", far), ("b/twin", twice[1]), ("twin", None)]):
        body = {"name": f"s{number}", "check": TCP, "remedy": {"type": "restart_app", "app": ref}}
        made = cluster.call("POST", "/services", body)
        assert made.json().get("remedy", {}).get("app") == (found.pk if found else None), made.content


def test_what_the_platform_or_the_configuration_defines_is_changed_there(cluster):
    make_service("platform:database", source="platform", check={"type": "part", "part": "database"})
    refused = cluster.call("DELETE", "/services/platform:database")
    assert (refused.status_code, refused.json()["code"]) == (409, "service_fixed")
    row = make_service("conf", source="config")
    refused = cluster.call("PATCH", "/services/conf", {"interval_s": 60})
    assert (refused.status_code, refused.json()["code"]) == (409, "service_fixed")
    assert cluster.call("PATCH", "/services/conf", {"severity": "info"}).json()["severity"] == "info"
    switched = cluster.call("PATCH", f"/services/{row.pk}", {"maintenance": True})
    assert switched.json()["maintenance"] is True


def test_a_part_of_the_platform_keeps_its_check_and_takes_another_severity(cluster):
    make_service("platform:database", source="platform", check={"type": "part", "part": "database"})
    changed = cluster.call("PATCH", "/services/platform:database", {"severity": "info", "owner": "ops"})
    assert (changed.status_code, changed.json()["severity"], changed.json()["owner"]) == (200, "info", "ops")
    for body in ({"check": {"type": "tcp", "host": "10.0.0.1", "port": 1}}, {"interval_s": 60}, {"name": "mine"},
                 {"remedy": {"type": "webhook", "url": "http://10.0.0.1/"}}):  # fmt: skip
        assert cluster.call("PATCH", "/services/platform:database", body).status_code == 409, body
    assert cluster.call("PATCH", "/services/platform:database", {"colour": 1}).status_code == 422


def test_maintenance_may_have_an_end_that_lies_ahead(cluster):
    make_service("a")
    past = cluster.call("PATCH", "/services/a", {"maintenance": True, "maintenance_until": "2020-01-01T00:00:00Z"})
    assert problems(past) == {"/maintenance_until": "invalid"}
    ahead = cluster.call("PATCH", "/services/a", {"maintenance_until": "2100-01-01T00:00:00Z"})
    assert (ahead.json()["maintenance"], ahead.json()["maintenance_until"][:4]) == (True, "2100")
    assert cluster.call("PATCH", "/services/a", {"maintenance": False}).json()["maintenance_until"] is None


def test_services_are_the_platforms_business(cluster):
    make_service("a")
    stranger = make_token(make_org(), role="owner")
    for method, path, body in (("GET", "/services", None), ("POST", "/services", {}), ("GET", "/alerts", None),
                               ("DELETE", "/services/a", None), ("POST", "/services/a/heartbeat", {})):  # fmt: skip
        answer = call(stranger, method, path, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope"), path


def test_a_heartbeat_needs_a_token_for_nothing_else(cluster):
    make_service("job", check={"type": "heartbeat"})
    make_service("db")
    token = make_token(cluster.org, platform=True, scopes=["services:beat"])
    assert call(token, "POST", "/services/job/heartbeat").status_code == 200
    assert call(token, "POST", "/services/job/heartbeat", {"ok": False, "detail": "disk full"}).status_code == 200
    assert call(token, "GET", "/services").status_code == 403
    other = call(token, "POST", "/services/db/heartbeat")
    assert (other.status_code, other.json()["code"]) == (409, "no_heartbeat_wanted")


def test_a_dry_run_changes_nothing_and_a_repeated_key_answers_the_same(cluster):
    body = {"name": "a", "check": TCP}
    assert cluster.call("POST", "/services?dry_run=true", body).json()["object"]["name"] == "a"
    assert not Service.objects.exists()
    first, again = (cluster.call("POST", "/services", body, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert Service.objects.count() == 1


def test_the_history_of_checks_is_paged_newest_first_by_vantage_point(cluster):
    service = make_service("a")
    for number in range(5):
        span = {"service_id": service.pk, "from_us": 1000 + number, "at_us": 2000 + number, "outcome": "passing",
                "checks": 1, "latency_ms": 1.5, "latency_ms_max": 2.0, "detail": "fine"}  # fmt: skip
        node = cluster.nodes[number % 2]
        call(cluster.node_token(node), "POST", "/agent/spans", {"node": node, "spans": [span]})
    first = cluster.call("GET", "/services/a/checks?limit=2").json()
    assert [item["node"] for item in first["items"]] == [cluster.nodes[0], cluster.nodes[1]]
    rest = cluster.call("GET", first["next"].replace("http://testserver", "")).json()
    assert len(rest["items"]) == 2
    only = cluster.call("GET", f"/services/a/checks?node={cluster.nodes[1]}").json()["items"]
    assert {item["node"] for item in only} == {cluster.nodes[1]}
    assert len(only) == 2


def test_lists_can_be_narrowed(cluster):
    make_service("a", state="unhealthy")
    make_service("b", state="healthy")
    assert [s["name"] for s in cluster.call("GET", "/services?state=unhealthy").json()["items"]] == ["a"]
    assert cluster.call("GET", "/services?state=bad").status_code == 422
    assert [s["name"] for s in cluster.call("GET", "/services?q=b").json()["items"]] == ["b"]


def test_with_the_database_away_the_last_known_states_answer(cluster, monkeypatch):
    record = {"state": "unhealthy", "since": "2026-01-01T00:00:00Z", "detail": "refused"}
    assert cluster.call("GET", "/services").status_code == 200  # the token is known here from now on
    monkeypatch.setattr(
        parts, "database", Inline(lambda: parts.Database(False, "gone"), lambda why: parts.Database(False, why))
    )
    replicated = {"state": {"services": {standings.PREFIX + "db": record, "database": {"state": "up"}}}}
    monkeypatch.setattr(parts, "raft", Inline(lambda: replicated, lambda _why: {}))
    monkeypatch.setattr(standings, "last_written", lambda: {"db": record})
    listed = cluster.call("GET", "/services")
    assert listed.status_code == 200
    assert [(item["name"], item["state"]) for item in listed.json()["items"]] == [("db", "unhealthy")]
    assert "Omni-Stale" in listed.headers
    assert cluster.call("GET", "/services/db").json()["detail"] == "refused"
    assert cluster.call("GET", "/services/other").status_code == 404


def test_an_address_that_is_a_name_is_judged_when_it_is_called():
    assert definitions.refused_address({**TCP, "host": "localhost"}, definitions.AddressPolicy()) is None


def test_the_configurations_services_have_the_same_shape():
    assert settings.CONFIG.services == ()
    assert Cluster

"""Custom domains over HTTP and through the leader's rounds, with a real DNS server."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings

from apps import domain_checks
from apps.domain_checks import PENDING_S, DomainChecks
from apps.domain_lookup import Lookup
from apps.models import App, Domain
from consensus import gate
from instances import routes
from instances.conftest import call, node_token
from omni.api.test_apps import Api
from omni.kernel import clock
from omni.kernel.models import Event
from omni.kernel.resolvers import parse
from omni.testing.dns_server import DnsServer
from omni.testing.factories import make_org, make_token

pytestmark = [
    pytest.mark.database,
    pytest.mark.django_db(databases=["default", "telemetry"]),
    pytest.mark.usefixtures("fence"),
]
NAME = "shop.example.org"


@pytest.fixture
def api() -> Api:
    return Api(make_token(make_org("home")))


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as made:
        yield made


class Clock:
    """Time that the test moves on: that of the rows, and that of the rounds (but not the lease's)."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._passed = 0.0
        now = clock.now
        patch.setattr(clock, "now", lambda: now() + dt.timedelta(seconds=self._passed))
        rounds = SimpleNamespace(monotonic=lambda: time.monotonic() + self._passed, now=clock.now)
        patch.setattr(domain_checks, "clock", rounds)

    def on(self, seconds: float) -> None:
        self._passed += seconds


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def checks(server: DnsServer) -> DomainChecks:
    return DomainChecks(Lookup(parse(server.address), 2.0), spread=lambda: 0.5)


def served() -> set[str]:
    """The host names that ingresses are told to serve."""
    routes.forget()
    answer = call(node_token("127.0.0.1-8000"), "GET", "/agent/routes")
    return {host["host"] for host in answer.json()["hosts"]}


def shown(api: Api, app: str = "web") -> dict[str, Any]:
    body: dict[str, Any] = api.ok("GET", f"/app/{app}/info")
    return body


def kinds() -> list[str]:
    return [kind for kind in Event.objects.order_by("key").values_list("kind", flat=True) if kind.startswith("domain.")]


def test_a_domain_is_served_once_its_record_was_seen(
    api: Api, server: DnsServer, checks: DomainChecks, moment: Clock
) -> None:
    created = api.ok("POST", "/app/create", {"name": "web", "domains": [NAME]})
    (domain,) = created["custom_domains"]
    assert (domain["name"], domain["status"]) == (NAME, "pending")
    assert domain["record"]["type"] == "TXT"
    assert domain["record"]["name"] == f"_omni-challenge.{NAME}"
    assert shown(api)["custom_domains"][0]["record"] == domain["record"]
    assert len(created["urls"]) == 1
    checks.tick()
    (domain,) = shown(api)["custom_domains"]
    assert domain["problem"] == f"There is no TXT record at _omni-challenge.{NAME} yet."
    assert NAME not in served()
    server.records[domain["record"]["name"]] = ["other", domain["record"]["value"]]
    before = shown(api)["revision"]
    checks.tick()
    assert NAME not in served(), "a look-up only when it is due"
    moment.on(PENDING_S[0])
    checks.tick()
    after = shown(api)
    (domain,) = after["custom_domains"]
    assert (domain["status"], domain["problem"]) == ("verified", None)
    assert domain["verified_at"] is not None
    assert after["revision"] > before, "watchers wake, and the ETag is another"
    assert after["urls"][1].startswith(f"http://{NAME}")
    assert api.ok("GET", "/app")["items"][0]["urls"] == after["urls"]
    assert NAME in served()
    assert kinds() == ["domain.checked", "domain.verified"]


def test_a_record_that_is_gone_ends_the_service_after_the_grace_time_only(
    api: Api, server: DnsServer, checks: DomainChecks, moment: Clock
) -> None:
    app = api.ok("POST", "/app/create", {"name": "web", "domains": [NAME]})
    record = app["custom_domains"][0]["record"]
    server.records[record["name"]] = [record["value"]]
    checks.tick()
    server.records.clear()
    moment.on(settings.CONFIG.domains.recheck_s * 1.2)
    checks.tick()
    (domain,) = shown(api)["custom_domains"]
    assert (domain["status"], NAME in served()) == ("verified", True)
    assert domain["served_until"] is not None
    server.records[record["name"]] = [record["value"]]
    moment.on(300)
    checks.tick()
    assert shown(api)["custom_domains"][0]["failing_since"] is None
    server.records.clear()
    for _ in range(3):
        moment.on(settings.CONFIG.domains.grace_s)
        checks.tick()
    (domain,) = shown(api)["custom_domains"]
    assert (domain["status"], NAME in served()) == ("pending", False)
    assert shown(api)["urls"] == app["urls"]
    assert kinds() == ["domain.verified", "domain.failing", "domain.recovered", "domain.failing", "domain.unproven"]


def test_a_dns_that_is_silent_changes_nothing_for_a_proven_domain_and_a_new_leader_goes_on(
    api: Api, server: DnsServer, checks: DomainChecks, moment: Clock
) -> None:
    app = api.ok("POST", "/app/create", {"name": "web", "domains": [NAME]})
    record = app["custom_domains"][0]["record"]
    server.records[record["name"]] = [record["value"]]
    checks.tick()
    server.silent = True
    moment.on(settings.CONFIG.domains.grace_s * 2)
    DomainChecks(Lookup(parse(server.address), 0.2), spread=lambda: 0.0).tick()
    assert NAME in served()
    assert kinds() == ["domain.verified"]


def test_a_domain_of_another_app_and_of_the_platform_is_refused(api: Api, moment: Clock) -> None:
    api.ok("POST", "/app/create", {"name": "web", "domains": [NAME]})
    other = Api(make_token(make_org("other")))
    answer = other("POST", "/app/create", {"name": "thief", "domains": [NAME]})
    assert (answer.status_code, answer.json()["code"]) == (409, "domain_taken")
    assert "lapses" in answer.json()["detail"]
    for name in ("localhost", "x.localhost"):
        answer = api("PATCH", "/app/web", {"domains": [name]})
        assert answer.status_code == 422, name
    long = ".".join(["a" * 60] * 4) + ".org"
    assert api("PATCH", "/app/web", {"domains": [long]}).status_code == 422


def test_a_claim_that_was_never_proven_gives_way_after_a_while(api: Api, moment: Clock) -> None:
    api.ok("POST", "/app/create", {"name": "squatter", "domains": [NAME, "mine.example.org"]})
    moment.on(settings.CONFIG.domains.claim_s + 1)
    owner = Api(make_token(make_org("owner")))
    assert owner.ok("POST", "/app/create", {"name": "web", "domains": [NAME]})["domains"] == [NAME]
    assert shown(api, "squatter")["domains"] == ["mine.example.org"]
    assert kinds() == ["domain.claim_lapsed"]
    with gate.maintenance("test"):
        Domain.objects.filter(name=NAME).update(verified_at=clock.now())
    moment.on(settings.CONFIG.domains.claim_s * 10)
    assert api("PATCH", "/app/squatter", {"domains": [NAME]}).status_code == 409


def test_a_removed_domain_is_served_and_looked_up_no_more(
    api: Api, server: DnsServer, checks: DomainChecks, moment: Clock
) -> None:
    app = api.ok("POST", "/app/create", {"name": "web", "domains": [NAME]})
    record = app["custom_domains"][0]["record"]
    server.records[record["name"]] = [record["value"]]
    checks.tick()
    changed = api.ok("PATCH", "/app/web", {"domains": []})
    assert (changed["custom_domains"], len(changed["urls"])) == ([], 1)
    assert NAME not in served()
    asked = len(server.asked)
    moment.on(settings.CONFIG.domains.recheck_s * 2)
    checks.tick()
    assert len(server.asked) == asked
    again = api.ok("PATCH", "/app/web", {"domains": [NAME]})
    assert again["custom_domains"][0]["record"] == record, "the same app proves it by the same record"
    assert again["custom_domains"][0]["status"] == "pending"


def test_many_domains_are_looked_up_in_bounded_rounds(
    api: Api, server: DnsServer, checks: DomainChecks, moment: Clock
) -> None:
    api.ok("POST", "/app/create", {"name": "web", "domains": [f"d{number}.example.org" for number in range(40)]})
    checks.tick()
    assert len(server.asked) == 32
    checks.tick()
    assert len(set(server.asked)) == 40
    assert App.objects.get(name="web").served_domains == []

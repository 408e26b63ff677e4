"""Services that nobody registers by hand: the platform's own parts, and those of config.json."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings

from consensus import gate
from omni.kernel import clock
from omni.kernel.service_keys import ServiceKeys
from omni.testing.factories import make_app, make_org, make_service
from services.models import Service
from services.registration import Registrar

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"]),
              pytest.mark.usefixtures("fence")]  # fmt: skip
TCP = {"type": "tcp", "host": "10.0.0.9", "port": 3306}


def configure(monkeypatch: pytest.MonkeyPatch, *services: dict[str, Any]) -> None:
    keys = tuple(ServiceKeys.model_validate(one) for one in services)
    monkeypatch.setattr(settings, "CONFIG", settings.CONFIG.model_copy(update={"services": keys}))


def named(source: str) -> list[str]:
    return list(Service.objects.filter(source=source).order_by("name").values_list("name", flat=True))


def test_the_platforms_own_parts_come_by_themselves_and_keep_what_an_operator_set() -> None:
    Registrar().register(["10.0.0.1-8000"])
    parts = named("platform")
    assert {"platform:database", "platform:broker", "platform:workers", "platform:ingress"} < set(parts)
    assert "platform:disk:10.0.0.1-8000" in parts
    with gate.maintenance("test"):
        Service.objects.filter(name="platform:database").update(severity="info")
    Registrar().register(["10.0.0.1-8000", "10.0.0.2-8000"])
    assert Service.objects.get(name="platform:database").severity == "info"
    assert len(named("platform")) == len(parts) + 2


def test_services_of_the_configuration_come_change_and_go_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(monkeypatch, {"name": "shop", "check": TCP, "depends_on": ["db"]}, {"name": "db", "check": TCP})
    registrar = Registrar()
    registrar.register([])
    assert named("config") == ["db", "shop"]
    configure(monkeypatch, {"name": "db", "check": TCP, "interval_s": 2.0})
    registrar.register([])
    assert [(row.name, row.interval_s, row.timeout_s) for row in Service.objects.filter(source="config")] == [
        ("db", 2.0, 2.0)
    ]


def test_what_is_refused_at_first_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    remedy = {"type": "restart_app", "app": "web"}
    configure(monkeypatch, {"name": "db", "check": TCP, "remedy": remedy})
    registrar = Registrar()
    registrar.register([])
    assert named("config") == []
    app = make_app(make_org("home"), "web")
    now += 20
    registrar.register([])
    assert Service.objects.get(name="db").remedy["app"] == app.pk  # type: ignore[index]


def test_a_name_that_the_api_gave_before_is_kept_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    make_service("db")
    configure(monkeypatch, {"name": "db", "check": TCP, "interval_s": 60.0})
    Registrar().register([])
    assert (Service.objects.get(name="db").source, named("config")) == ("api", [])

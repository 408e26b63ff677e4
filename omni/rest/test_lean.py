"""The shortcut of frequent reads keeps every rule of the long way."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from omni.testing.factories import make_app, make_org, make_token

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]


def get(path: str, token: str = "", **headers: str) -> Any:
    given = {"Authorization": f"Bearer {token}"} if token else {}
    return Client().get(path, headers={**given, **headers})


@pytest.mark.parametrize("path", ["/app/{}/info", "/app/{}/metrics"])
def test_a_lean_read_asks_for_credentials_scope_and_org(path: str) -> None:
    org = make_org()
    url = path.format(make_app(org).pk)
    assert get(url).status_code == 401
    assert get(url, make_token(org, scopes=["logs:read"])).status_code == 403
    assert get(url, make_token(make_org())).status_code == 404
    answer = get(url, make_token(org, role="viewer"))
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert answer["Omni-Index"]
    assert answer["ETag"]


def test_unchanged_metrics_are_304_and_unmeasured_figures_null() -> None:
    org = make_org()
    url, token = f"/app/{make_app(org).pk}/metrics", make_token(org)
    first = get(url, token)
    assert first.json()["cpu_percent"] is None
    assert first.json()["requests_per_second"] is None
    again = get(url, token, **{"If-None-Match": first["ETag"]})
    assert again.status_code == 304
    assert again.content == b""

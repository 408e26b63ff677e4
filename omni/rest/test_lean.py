"""The shortcut of frequent requests keeps every rule of the long way."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from apps.models import App
from consensus import gate
from omni.api.apps import AppViewSet
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


@pytest.mark.parametrize(
    ("body", "content_type", "query", "status"),
    [
        (b"", "application/json", "", 422),
        (b"{", "application/json", "", 400),
        (b"[]", "application/json", "", 422),
        (b'"text"', "application/json", "", 422),
        (b"null", "application/json", "", 422),
        (b'{"name": "new"}', "text/plain", "", 415),
        (b'{"name": "new"}', "application/x-www-form-urlencoded", "", 415),
        (b'{"name": "new"}', "application/json; charset=latin-1", "", 201),
        (b'{"name": "new"}', "application/merge-patch+json", "", 201),
        (b'{"name": "new", "memry_mb": 1, "cpu": "fast"}', "application/json", "", 422),
        (
            b'{"name": "new", "strategy": {"type": "rolling", "surge": 1}, "env": {"PORT": "1"}}',
            "application/json",
            "",
            422,
        ),
        (b'{"name": "new", "org": "nobodys"}', "application/json", "", 404),
        (b'{"name": "taken"}', "application/json", "", 409),
        (b'{"name": "new"}', "application/json", "?dry_run=true", 200),
        (b'{"name": "new"}', "application/json", "?dry_run=maybe", 422),
    ],
)
def test_a_lean_write_answers_what_the_long_way_answers(
    body: bytes, content_type: str, query: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = make_org()
    make_app(org, "taken")
    token = make_token(org)

    def post() -> Any:
        path, headers = f"/app/create{query}", {"Authorization": f"Bearer {token}", "Request-Id": "same"}
        answer = Client().generic("POST", path, body, content_type, headers=headers)
        names = ("Content-Type", "Omni-Outcome", "Cache-Control", "Retry-After")
        text = answer.json()
        for changing in ("id", "links", "created_at", "updated_at"):
            text.pop(changing, None)
            text.get("object", {}).pop(changing, None)
        return answer.status_code, text, {name: answer.headers.get(name) for name in names}

    lean = post()
    with gate.maintenance("test"):
        App.objects.filter(org=org, name="new").delete()
    monkeypatch.setattr(AppViewSet, "lean", frozenset())
    assert lean == post()
    assert lean[0] == status


def test_a_lean_write_asks_for_credentials_scope_and_keeps_its_answer() -> None:
    org = make_org()
    token = make_token(org)

    def post(token: str, **headers: str) -> Any:
        given = {"Authorization": f"Bearer {token}"} if token else {}
        return Client().post("/app/create", {"name": "once"}, "application/json", headers={**given, **headers})

    assert post("").status_code == 401
    assert post(make_token(org, role="viewer")).status_code == 403
    first, again = (post(token, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again["Omni-Replayed"] == "true"
    assert first.content == again.content
    assert first["ETag"] == again["ETag"]
    assert first["Omni-Index"] == again["Omni-Index"]
    assert first["Location"] == f"/app/{first.json()['id']}/info"

"""Which requests go past Django's handler."""

from __future__ import annotations

from typing import Any

import pytest

from omni.front import lean
from omni.front.django_threads import _environ
from omni.front.requests import Request
from omni.testing.factories import make_org, make_token


def environ(method: str, path: str, token: str | None = None, body: bytes = b"") -> dict[str, Any]:
    async def nothing() -> dict[str, Any]:
        return {}

    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token or 1}"} if token != "" else {})
    request = Request(method, path, "", headers, "127.0.0.1", "http", ("127.0.0.1", 8000), nothing)
    return _environ(request, body)


@pytest.mark.parametrize(
    ("method", "path", "takes"),
    [
        ("GET", "/app/7/info", True),
        ("GET", "/app/shop/metrics", True),
        ("GET", "/app/7/instances", True),
        ("POST", "/app/create", True),
        ("GET", "/app/create", False),  # an app cannot have that name
        ("OPTIONS", "/app/create", False),
        ("POST", "/app/7/info", False),
        ("DELETE", "/app/7", False),
        ("GET", "/app/7/info/", False),
        ("GET", "/app/\u00e4/info", False),
        ("GET", "/", False),
    ],
)
def test_only_lean_actions_take_the_shortcut(method: str, path: str, takes: bool) -> None:
    assert lean.takes(environ(method, path)) is takes
    assert lean.takes(environ(method, path, token="")) is False


@pytest.mark.django_db(databases=["default", "telemetry"])
@pytest.mark.usefixtures("fence")
def test_a_write_on_the_shortcut_is_a_write() -> None:
    asked = environ("POST", "/app/create", make_token(make_org()), b'{"name": "shop"}')
    assert lean.takes(asked)
    answer = lean.respond(asked)
    assert answer.status_code == 201
    assert {"Omni-Index", "Omni-Node", "Omni-Leader", "Request-Id", "ETag", "Location"} <= set(answer.headers)
    assert answer.headers["Omni-Outcome"] == "applied"
    assert answer.headers["Content-Length"] == str(len(answer.content))

"""What every write promises: one answer per key, If-Match, dry runs, problems that say what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from accounts.models import Org
from consensus import fence
from consensus.fake import FakeLease
from consensus.models import StoredReply
from omni.kernel.errors import OutcomeUnknown
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_org, make_token

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]


class Api:
    """A client with a token."""

    def __init__(self, token: str) -> None:
        self.client = Client()
        self.headers = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.generic(
            method, path, data="" if data is None else __import__("json").dumps(data),
            content_type="application/json", headers={**self.headers, **extra},
        )  # fmt: skip


@pytest.fixture
def org() -> Org:
    return make_org("home")


@pytest.fixture
def api(org: Org) -> Api:
    return Api(make_token(org, platform=True))


def test_an_answer_to_a_write_says_its_index_and_outcome(api: Api) -> None:
    answer = api("POST", "/orgs", {"name": "acme"})
    assert answer.status_code == 201
    assert int(answer["Omni-Index"]) == fence.write_index()
    assert answer["Omni-Outcome"] == "applied"
    assert answer["ETag"] == '"1"'
    assert answer["Location"] == "/orgs/acme"


def test_the_same_key_and_body_replays_the_first_answer(api: Api) -> None:
    first = api("POST", "/orgs", {"name": "acme", "description": "x"}, Idempotency_Key="k")
    again = api("POST", "/orgs", {"description": "x", "name": "acme"}, Idempotency_Key="k")
    assert again.status_code == first.status_code == 201
    assert again.content == first.content
    assert again["Omni-Index"] == first["Omni-Index"]
    assert again["Omni-Replayed"] == "true"
    assert Event.objects.filter(kind="org.created").count() == 1


def test_the_same_key_with_another_body_is_refused(api: Api) -> None:
    api("POST", "/orgs", {"name": "acme"}, Idempotency_Key="k")
    answer = api("POST", "/orgs", {"name": "other"}, Idempotency_Key="k")
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"


def test_a_refusal_is_not_kept_under_the_key(api: Api) -> None:
    assert api("POST", "/orgs", {"name": "home"}, Idempotency_Key="k").status_code == 409
    assert StoredReply.objects.count() == 0


def test_an_unknown_outcome_stays_unknown_when_the_database_is_gone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def stored(self: Any) -> None:
        asked.append("stored")
        if len(asked) > 1:
            raise OperationalError(2006, "gone")

    def broken(*_: Any, **__: Any) -> None:
        raise OutcomeUnknown("the connection broke while committing")

    monkeypatch.setattr("omni.rest.writes._Key.stored", stored)
    monkeypatch.setattr("omni.rest.writes.gate.run", broken)
    answer = api("POST", "/orgs", {"name": "acme"}, Idempotency_Key="k")
    assert answer.status_code == 504
    assert answer["Omni-Outcome"] == "unknown"


def test_a_write_that_changes_nothing_keeps_its_answer(api: Api, org: Org) -> None:
    make_app(org, "same", instances=1)
    first = api("POST", "/app/same/scale", {"instances": 1}, Idempotency_Key="k")
    again = api("POST", "/app/same/scale", {"instances": 1}, Idempotency_Key="k")
    assert first.status_code == again.status_code == 202, first.content
    assert again["Omni-Replayed"] == "true"


def test_a_key_belongs_to_its_principal(api: Api, org: Org) -> None:
    other = Api(make_token(org, platform=True))
    assert api("POST", "/orgs", {"name": "one"}, Idempotency_Key="k").status_code == 201
    assert other("POST", "/orgs", {"name": "two"}, Idempotency_Key="k").status_code == 201


def test_a_stored_answer_is_not_readable_in_the_database(api: Api) -> None:
    secret = api("POST", "/tokens", {"name": "ci"}, Idempotency_Key="k").json()["token"]
    assert secret not in StoredReply.objects.get().body
    assert api("POST", "/tokens", {"name": "ci"}, Idempotency_Key="k").json()["token"] == secret


def test_a_stale_if_match_changes_nothing(api: Api, org: Org) -> None:
    assert api("PATCH", "/orgs/home", {"description": "a"}, If_Match='"1"').status_code == 200
    answer = api("PATCH", "/orgs/home", {"description": "b"}, If_Match='"1"')
    assert answer.status_code == 412
    assert answer["Omni-Outcome"] == "not-applied"
    assert Org.objects.get(pk=org.pk).description == "a"


def test_a_dry_run_commits_nothing(api: Api) -> None:
    before = fence.write_index()
    answer = api("POST", "/orgs?dry_run=true", {"name": "acme"})
    assert answer.status_code == 200
    assert answer.json()["object"]["name"] == "acme"
    assert not Org.objects.filter(name="acme").exists()
    assert fence.write_index() == before


def test_a_follower_that_was_asked_directly_says_so(api: Api, lease: FakeLease) -> None:
    lease.lose("127.0.0.1:8000")
    answer = api("POST", "/orgs", {"name": "acme"})
    assert answer.status_code == 503
    assert answer.json()["code"] == "no_leader"
    assert answer["Retry-After"]
    assert answer["Omni-Outcome"] == "not-applied"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/orgs", "{", 400, "malformed"),
        ("POST", "/orgs", '{"name": "UPPER"}', 422, "invalid"),
        ("POST", "/orgs", '{"name": "ok", "extra": 1}', 422, "invalid"),
        ("GET", "/orgs/nobody", "", 404, "not_found"),
        ("GET", "/nowhere", "", 404, "not_found"),
        ("PUT", "/orgs", "", 405, "method_not_allowed"),
        ("GET", "/orgs?limit=0", "", 422, "invalid"),
        ("GET", "/orgs?cursor=xx", "", 422, "invalid"),
    ],
)
def test_every_error_is_a_problem(api: Api, method: str, path: str, body: str, status: int, code: str) -> None:
    answer = api.client.generic(method, path, body, content_type="application/json", headers=api.headers)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert problem["request_id"] == answer["Request-Id"]


def test_a_wrong_media_type_is_415(api: Api) -> None:
    answer = api.client.generic("POST", "/orgs", "a=b", content_type="text/plain", headers=api.headers)
    assert answer.status_code == 415


def test_no_credentials_is_401_and_a_missing_scope_is_named(api: Api, org: Org) -> None:
    assert Client().get("/orgs").status_code == 401
    answer = Api(make_token(org, role="viewer"))("POST", "/tokens", {"name": "x"})
    assert answer.status_code == 403
    assert "tokens:write" in answer.json()["detail"]


def test_pages_link_to_each_other_without_gap_or_repeat(api: Api) -> None:
    for number in range(7):
        make_org(f"org-x{number}")
    seen: list[int] = []
    url: str | None = "/orgs?limit=3"
    while url:
        answer = api("GET", url).json()
        seen += [item["id"] for item in answer["items"]]
        last, url = answer, answer["next"]
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen)) == Org.objects.count()
    back = api("GET", last["previous"]).json()["items"]
    assert [item["id"] for item in back] == seen[-3 - len(last["items"]) : -len(last["items"])]


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [("{broken", "application/json", 400), ('{"x": 1}', "application/json", 422), ("x", "text/plain", 415),
     ("[1]", "application/json", 422), ("", "application/json", 404), ("{}", "application/json", 404)],
)  # fmt: skip
def test_a_call_without_fields_takes_no_body(api: Api, body: str, media: str, status: int) -> None:
    for path in ("/app/nobody/stop", "/app/nobody/release/1/deploy", "/nodes/nobody/drain"):
        answer = api.client.generic("POST", path, body, content_type=media, headers=api.headers)
        assert answer.status_code == status, (path, answer.content)

"""Uploads, builds, releases over HTTP: codes, access, idempotency, pages."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.test import Client

from apps.models import App, DesiredState
from consensus import gate
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_build, make_org, make_release, make_token
from releases import build_log
from releases.models import Build

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.database]


class Api:
    """A client with a token; `upload` stands for the front, which calls the view twice."""

    def __init__(self, token: str) -> None:
        self._client, self._token = Client(), token

    def get(self, path: str, **query: Any) -> Any:
        return self._client.get(path, query, headers=self._headers({}))

    def post(self, path: str, **headers: str) -> Any:
        return self._client.post(path, b"{}", content_type="application/json", headers=self._headers(headers))

    def upload(self, path: str, given: Any, **headers: str) -> Any:
        before = self._send(path, {"omni.phase": "preflight"}, headers)
        if before.status_code != 204:
            return before
        return self._send(path, {"omni.phase": "take", "omni.upload": given}, headers)

    def _send(self, path: str, extra: dict[str, Any], headers: dict[str, str]) -> Any:
        return self._client.generic(
            "POST", path, b"", content_type="application/gzip", headers=self._headers(headers), **extra
        )

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        given = {name.replace("_", "-"): value for name, value in more.items()}
        return {"Authorization": f"Bearer {self._token}", **given}


@pytest.fixture
def api(app: App, artifacts: Any) -> Api:
    return Api(make_token(app.org))


def digest_header(hexadecimal: str) -> str:
    return f"sha-256=:{base64.b64encode(bytes.fromhex(hexadecimal)).decode()}:"


def test_an_upload_is_accepted_with_links(api: Api, app: App, upload: Any, artifacts: Any) -> None:
    given = upload()
    answer = api.upload(f"/app/{app.name}/release/v1.0/upload", given, Content_Digest=digest_header(given.sha256))
    body = answer.json()
    assert answer.status_code == 202, body
    assert answer["Location"] == f"/app/{app.pk}/builds/{body['id']}" == body["links"]["self"]
    assert (body["status"], body["version"], body["artifact"]) == (
        "queued", "v1.0", {"sha256": given.sha256, "size": given.size}
    )  # fmt: skip
    assert answer["Omni-Outcome"] == "applied"
    assert answer["ETag"] == '"1"'
    assert int(answer["Omni-Index"]) == Event.objects.get().write_index
    assert artifacts.verify(given.sha256)
    assert Build.objects.get().deploy
    assert api.get(answer["Location"]).json() == body


def test_the_same_upload_answers_the_same_build_and_other_bytes_409(api: Api, app: App, upload: Any) -> None:
    path = f"/app/{app.pk}/release/1/upload"
    first = api.upload(path, upload(b"same"))
    again = api.upload(path, upload(b"same"))
    other = api.upload(path, upload(b"other"))
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert again.json()["id"] == first.json()["id"]
    assert other.json()["code"] == "version_exists"
    assert other["Content-Type"] == "application/problem+json"


def test_refused_bytes_are_not_kept(api: Api, app: App, upload: Any, artifacts: Any) -> None:
    path = f"/app/{app.pk}/release/1/upload"
    api.upload(path, upload(b"same"))
    kept = list(artifacts.local_digests())
    api.upload(path, upload(b"other"))
    api.upload(f"/app/{app.pk}/release/2/upload", upload(), Content_Digest=digest_header("0" * 64))
    api.upload(f"/app/{app.pk}/release/3/upload", upload(b"no archive", raw=True))
    assert list(artifacts.local_digests()) == kept


@pytest.mark.parametrize(
    ("path", "headers", "content", "status", "code"),
    [
        ("/app/nope/release/1/upload", {}, b"", 404, "not_found"),
        ("/app/shop/release/-1/upload", {}, b"", 422, "invalid"),
        ("/app/shop/release/1/upload?deploy=perhaps", {}, b"", 422, "invalid"),
        ("/app/shop/release/1/upload", {"Content_Digest": "sha-256=x"}, b"", 422, "bad_digest"),
        ("/app/shop/release/1/upload", {"Content_Digest": digest_header("0" * 64)}, b"", 422, "digest_mismatch"),
    ],
)
def test_bad_uploads_have_their_codes(
    api: Api, upload: Any, path: str, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    answer = api.upload(path, upload(content), **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["Omni-Outcome"] == "not-applied"
    assert not Build.objects.exists()


def test_what_is_no_archive_is_422(api: Api, app: App, upload: Any) -> None:
    answer = api.upload(f"/app/{app.pk}/release/1/upload", upload(b"hello", raw=True))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_archive")


def test_the_form_may_say_not_to_deploy(api: Api, app: App, upload: Any) -> None:
    answer = api.upload(f"/app/{app.pk}/release/1/upload", upload(deploy="false"))
    assert answer.json()["deploy"] is False


def test_an_idempotency_key_replays_the_first_answer(api: Api, app: App, upload: Any) -> None:
    path = f"/app/{app.pk}/release/1/upload"
    first = api.upload(path, upload(b"same"), Idempotency_Key="k")
    again = api.upload(path, upload(b"same"), Idempotency_Key="k")
    assert (again.status_code, again.json()) == (202, first.json())
    other = api.upload(f"/app/{app.pk}/release/2/upload", upload(b"same"), Idempotency_Key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_dry_run_keeps_nothing(api: Api, app: App, upload: Any, artifacts: Any) -> None:
    answer = api.upload(f"/app/{app.pk}/release/1/upload?dry_run=true", upload())
    assert answer.json()["dry_run"] is True
    assert not Build.objects.exists()
    assert not list(artifacts.local_digests())


def test_an_almost_full_disk_takes_no_upload(api: Api, app: App, upload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")

    given = upload()
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage(100 << 30, 99 << 30, 1 << 29))
    answer = api.upload(f"/app/{app.pk}/release/1/upload", given)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


def test_an_app_that_is_being_deleted_takes_no_upload(api: Api, app: App, upload: Any) -> None:
    with gate.maintenance("test"):
        App.objects.update(desired_state=DesiredState.DELETED)
    answer = api.upload(f"/app/{app.pk}/release/1/upload", upload())
    assert (answer.status_code, answer.json()["code"]) == (409, "app_deleting")


def test_another_orgs_things_are_not_there(api: Api, app: App, upload: Any) -> None:
    other = make_app(make_org(), "theirs")
    build, release = make_build(other), make_release(other, "2")
    mine = make_build(app)
    for path in (
        f"/app/{other.pk}/builds",
        f"/app/{other.pk}/builds/{build.pk}",
        f"/app/{other.pk}/builds/{build.pk}/logs",
        f"/app/{other.pk}/releases",
        f"/app/{other.pk}/release/{release.version}",
        "/app/theirs/builds",
        f"/app/{app.pk}/builds/{build.pk}",  # a foreign id under one's own app
        f"/app/{app.pk}/builds/{build.pk}/logs",
        f"/app/{app.pk}/release/{release.version}",
        f"/app/{app.pk}/builds/{10**30}",
    ):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    for path in (f"/app/{other.pk}/builds/{build.pk}/cancel", f"/app/{app.pk}/builds/{build.pk}/cancel"):
        assert api.post(path).status_code == 404
    assert api.upload(f"/app/{other.pk}/release/9/upload", upload()).status_code == 404
    assert api.get(f"/app/{app.pk}/builds/{mine.pk}").status_code == 200


def test_a_viewer_reads_and_changes_nothing(app: App, upload: Any, artifacts: Any) -> None:
    build = make_build(app)
    viewer = Api(make_token(app.org, role="viewer"))
    assert viewer.get(f"/app/{app.pk}/builds").status_code == 200
    for answer in (
        viewer.post(f"/app/{app.pk}/builds/{build.pk}/cancel"),
        viewer.upload(f"/app/{app.pk}/release/2/upload", upload()),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


def test_a_queued_build_is_cancelled_by_request(api: Api, app: App) -> None:
    build = make_build(app)
    answer = api.post(f"/app/{app.pk}/builds/{build.pk}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert answer.json()["error"]["code"] == "cancelled"
    ended = make_build(app, "2", status="succeeded")
    refused = api.post(f"/app/{app.pk}/builds/{ended.pk}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "build_ended")


def test_builds_are_paged_newest_first_and_filtered(api: Api, app: App, django_assert_max_num_queries: Any) -> None:
    for i in range(5):
        make_build(app, str(i), status="failed" if i % 2 else "queued")
    first = api.get(f"/app/{app.pk}/builds", limit=2).json()
    second = api.get(first["next"]).json()
    assert [b["version"] for b in first["items"] + second["items"]] == ["4", "3", "2", "1"]
    assert api.get(second["previous"]).json()["items"] == first["items"]
    failed = api.get(f"/app/{app.pk}/builds", status="failed").json()["items"]
    assert [b["version"] for b in failed] == ["3", "1"]
    assert api.get(f"/app/{app.pk}/builds", status="odd").status_code == 422
    with django_assert_max_num_queries(6):
        api.get(f"/app/{app.pk}/builds")


def test_releases_say_which_is_wanted(api: Api, app: App) -> None:
    first, second = make_release(app, "v1"), make_release(app, "v2")
    with gate.maintenance("test"):
        App.objects.filter(pk=app.pk).update(desired_release=first.number)
    listed = api.get(f"/app/{app.pk}/releases").json()["items"]
    assert [(r["number"], r["desired"]) for r in listed] == [(second.number, False), (first.number, True)]
    one = api.get(f"/app/{app.pk}/release/v1").json()
    assert (one["id"], one["version"], one["config"]) == (first.pk, "v1", 1)
    build = api.get(f"/app/{app.pk}/builds/{first.build_id}").json()
    assert build["release_id"] == first.pk
    assert api.get(f"/app/{app.pk}/release/v3").status_code == 404


def test_a_log_is_read_forwards_backwards_and_from_its_end(api: Api, app: App) -> None:
    build = make_build(app)
    path = f"/app/{app.pk}/builds/{build.pk}/logs"
    empty = api.get(path).json()
    assert (empty["items"], empty["next"], empty["ended"]) == ([], None, None)
    build_log.append(build.pk, 1, 0, [(1_700_000_000_000_000 + i, 0, f"line {i}") for i in range(25)])
    seen, page = [], api.get(path, limit=10).json()
    while True:
        seen += [line["line"] for line in page["items"]]
        if page["next"] is None:
            break
        page = api.get(page["next"]).json()
    assert seen == [f"line {i}" for i in range(25)]
    before = api.get(page["previous"]).json()
    assert before["items"][-1]["line"] == "line 19"
    tail = api.get(path, tail=3).json()
    assert [line["line"] for line in tail["items"]] == ["line 22", "line 23", "line 24"]
    after = tail["items"][-1]["cursor"]
    assert api.get(path, cursor=after).json()["items"] == []
    build_log.append(build.pk, 1, 25, [(1_700_000_001_000_000, 1, "more")])
    (more,) = api.get(path, cursor=after).json()["items"]
    assert (more["line"], more["stream"], more["at"]) == ("more", "stderr", "2023-11-14T22:13:21.000000Z")
    assert api.get(path, cursor="rubbish").status_code == 422
    assert api.get(path, tail=0).status_code == 422


def test_a_log_says_when_nothing_can_come_any_more(api: Api, app: App) -> None:
    from omni.kernel import clock

    long_ago = clock.from_us(1_700_000_000_000_000)
    build = make_build(app, status="failed", finished_at=long_ago)
    assert api.get(f"/app/{app.pk}/builds/{build.pk}/logs").json()["ended"]["status"] == "failed"


def test_a_judged_upload_says_which_key_it_holds_for_which_principal(api: Api, app: App, artifacts: Any) -> None:
    path, before = f"/app/{app.name}/release/v1.0/upload", {"omni.phase": "preflight"}
    mine = api._send(path, before, {"Idempotency_Key": "k"})["Omni-Key-Scope"]
    assert len(mine) == 64
    assert mine == api._send(path, before, {"Idempotency_Key": "k"})["Omni-Key-Scope"]
    assert mine != api._send(path, before, {"Idempotency_Key": "l"})["Omni-Key-Scope"]
    assert mine != Api(make_token(app.org))._send(path, before, {"Idempotency_Key": "k"})["Omni-Key-Scope"]
    assert api._send(path, before, {})["Omni-Key-Scope"] == ""
    assert api._send(path, before, {"Idempotency_Key": "x" * 201}).status_code == 422

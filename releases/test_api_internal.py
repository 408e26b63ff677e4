"""What a build worker and the control plane say to each other, through the real views."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.test import Client

from apps.models import App
from omni.kernel import internal_tokens, keys
from omni.testing.factories import make_app, make_build, make_token
from releases.contract import Claim, claim_from, renewed_from
from releases.models import Build, BuildLogLine, Release

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.database]


class Worker:
    def __init__(self, name: str) -> None:
        token = internal_tokens.mint("worker", name, keys.cluster_secret(settings.CONFIG))
        self._client, self._headers = Client(), {"Authorization": f"Bearer {token}"}

    def post(self, path: str, body: Any, **headers: str) -> Any:
        return self._client.post(
            f"/internal/{path}", orjson.dumps(body), content_type="application/json",
            headers={**self._headers, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )  # fmt: skip

    def get(self, path: str) -> Any:
        return self._client.get(f"/internal/{path}", headers=self._headers)

    def put(self, path: str, given: Any, token: str) -> Any:
        headers = {**self._headers, "Omni-Build-Token": token}
        for extra in ({"omni.phase": "preflight"}, {"omni.phase": "take", "omni.upload": given}):
            answer = self._client.generic(
                "PUT", f"/internal/{path}", b"", content_type="application/x-tar", headers=headers, **extra
            )
            if answer.status_code >= 300:
                break
        return answer


@pytest.fixture
def worker(artifacts: Any, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(keys, "cluster_secret", lambda _config: "s" * 40)
    return Worker("w1")


def claim(worker: Worker, build: Build) -> Claim:
    answer = worker.post(f"builds/{build.pk}/claim", {"worker": "w1"})
    assert answer.status_code == 200, answer.json()
    return claim_from(answer.json())


def test_a_claim_whose_answer_was_lost_is_answered_again_and_no_other_is(worker: Worker, app: App) -> None:
    build = make_build(app)
    path, body = f"builds/{build.pk}/claim", {"worker": "w1"}
    first = worker.post(path, body, Idempotency_Key="claim-1")
    again = worker.post(path, body, Idempotency_Key="claim-1")
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["token"] == first.json()["token"]
    assert worker.post(path, body, Idempotency_Key="claim-2").json()["code"] == "not_claimable"


def test_a_build_from_claim_to_release(worker: Worker, app: App, upload: Any, artifacts: Any) -> None:
    source = upload()
    artifacts.put(source)
    build = make_build(app)
    Build.objects.all()
    claimed = claim(worker, build)
    assert (claimed.app, claimed.version, claimed.attempt) == (app.name, build.version, 1)
    assert claimed.limits.wall_s == settings.CONFIG.limits.build_wall_s
    fetched = worker.get(f"artifacts/{source.sha256}")
    assert hashlib.sha256(b"".join(fetched.streaming_content)).hexdigest() == source.sha256
    assert int(fetched["Content-Length"]) == source.size
    step = {"name": "build", "status": "running", "started_at": "2026-01-01T00:00:00Z", "finished_at": None}
    beat = {"token": claimed.token, "builder": "procfile", "steps": [step]}
    renewed = renewed_from(worker.post(f"builds/{build.pk}/heartbeat", beat).json())
    assert (renewed.lease_s, renewed.cancel) == (settings.CONFIG.timings.build_lease_s, False)
    build.refresh_from_db()
    assert build.steps == [step]
    lines = {"token": claimed.token, "first_seq": 0, "lines": [[1, 0, "a"], [2, 2, "b"]]}
    assert worker.post(f"builds/{build.pk}/logs", lines).json() == {"acked": 1}
    package = upload(b"tree", media_type="application/x-tar")
    path = f"packages/{package.sha256}?build={build.pk}"
    assert worker.put(path, package, claimed.token).status_code == 201
    assert worker.put(path, upload(b"tree"), claimed.token).status_code == 200
    outcome = {"token": claimed.token, "outcome": "succeeded", "builder": "procfile",
               "package": {"sha256": package.sha256, "size": package.size}, "process_types": {"web": "./run"},
               "steps": [step]}  # fmt: skip
    first = worker.post(f"builds/{build.pk}/finish", outcome).json()
    again = worker.post(f"builds/{build.pk}/finish", outcome).json()
    assert first == again == {"release": 1, "status": "succeeded"}
    assert Release.objects.get().process_types == {"web": "./run"}
    assert worker.post(f"builds/{build.pk}/logs", {**lines, "first_seq": 2}).json() == {"acked": 3}
    assert BuildLogLine.objects.filter(build_id=build.pk).count() == 4


def test_a_second_claim_is_told_so_and_a_repeated_one_is_answered_again(worker: Worker, app: App) -> None:
    build = make_build(app)
    body = {"worker": "w1"}
    first = worker.post(f"builds/{build.pk}/claim", body, Idempotency_Key="x")
    assert worker.post(f"builds/{build.pk}/claim", body, Idempotency_Key="x").json() == first.json()
    other = worker.post(f"builds/{build.pk}/claim", body)
    assert (other.status_code, other.json()["code"]) == (409, "not_claimable")


def test_nobody_speaks_for_a_build_without_its_token(worker: Worker, app: App, upload: Any) -> None:
    build = make_build(app)
    claim(worker, build)
    wrong = {"token": "x" * 43}
    package = upload()
    for answer in (
        worker.post(f"builds/{build.pk}/heartbeat", wrong),
        worker.post(f"builds/{build.pk}/logs", {**wrong, "first_seq": 0, "lines": []}),
        worker.post(f"builds/{build.pk}/finish", {**wrong, "outcome": "failed"}),
        worker.post("builds/999999/heartbeat", wrong),
        worker.put(f"packages/{package.sha256}?build={build.pk}", package, "x"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")


def test_a_package_must_be_what_its_digest_says(worker: Worker, app: App, upload: Any, artifacts: Any) -> None:
    build = make_build(app)
    token = claim(worker, build).token
    answer = worker.put(f"packages/{'0' * 64}?build={build.pk}", upload(), token)
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert not list(artifacts.local_digests())


def test_a_success_without_package_or_processes_is_refused(worker: Worker, app: App) -> None:
    build = make_build(app)
    token = claim(worker, build).token
    path = f"builds/{build.pk}/finish"
    assert worker.post(path, {"token": token, "outcome": "succeeded"}).status_code == 422
    bad = {"token": token, "outcome": "succeeded", "package": {"sha256": "0" * 64, "size": 1},
           "process_types": {"We b": "x"}}  # fmt: skip
    assert worker.post(path, bad).status_code == 422


def test_a_failure_is_told_with_its_code(worker: Worker, app: App) -> None:
    build = make_build(app)
    token = claim(worker, build).token
    error = {"code": "nothing_detected", "detail": "looked for Procfile"}
    answer = worker.post(f"builds/{build.pk}/finish", {"token": token, "outcome": "failed", "error": error})
    assert answer.json() == {"release": None, "status": "failed"}
    build.refresh_from_db()
    assert (build.error_code, build.error_detail) == ("nothing_detected", "looked for Procfile")


def test_a_users_token_does_none_of_this(app: App, worker: Worker) -> None:
    build = make_build(make_app())
    user = Client(headers={"Authorization": f"Bearer {make_token(app.org, platform=True)}"})
    for path in (f"builds/{build.pk}/claim", f"builds/{build.pk}/heartbeat"):
        answer = user.post(f"/internal/{path}", b"{}", content_type="application/json")
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert user.get(f"/internal/artifacts/{'0' * 64}").status_code == 403


@pytest.mark.parametrize("lines", ["x", [[1]], [["a", "b", "c"]], [1], [[0, 0, "x"]] * 5001])
def test_a_malformed_log_batch_is_refused(worker: Worker, app: App, lines: Any) -> None:
    build = make_build(app)
    token = claim(worker, build).token
    answer = worker.post(f"builds/{build.pk}/logs", {"token": token, "first_seq": 0, "lines": lines})
    assert answer.status_code == 422

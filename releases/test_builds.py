"""The life of a build: who may move it, and what two at once make of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.conf import settings

from apps.models import App, DesiredState
from consensus import gate
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.errors import Conflict
from omni.kernel.models import Event
from omni.testing.factories import make_app, make_org
from releases import services
from releases.models import Artifact, Build, BuildLogLine, Release
from releases.services import BuildResult
from releases.services.uploads import version_key

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.database]

SHA = "a" * 64
PACKAGE = "b" * 64


def upload_of(in_gate: Any, app: App, version: str = "1", sha256: str = SHA, deploy: bool = True) -> Build:
    accepted = in_gate(
        services.accept_upload, app=app, version=version, sha256=sha256, size=3, media_type="application/gzip",
        deploy=deploy,
    )  # fmt: skip
    build: Build = accepted.build
    return build


@pytest.fixture
def package(artifacts: Any, upload: Any) -> BuildResult:
    """A success, with its package in the store."""
    given = upload(b"a tree")
    artifacts.put(given)
    return BuildResult("succeeded", "procfile", given.sha256, given.size, {"web": "./run"})


def test_an_upload_is_an_artifact_and_a_queued_build(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    assert (build.status, build.attempt, build.version_key) == ("queued", 0, f"{app.pk}:1")
    assert Artifact.objects.get().pk == SHA
    assert [event.kind for event in Event.objects.all()] == ["build.queued"]


def test_the_same_bytes_answer_the_same_build(in_gate: Any, app: App) -> None:
    first = upload_of(in_gate, app)
    again = in_gate(services.accept_upload, app=app, version="1", sha256=SHA, size=3, media_type="x", deploy=True)
    assert (again.build.pk, again.created) == (first.pk, False)


@pytest.mark.parametrize(("version", "sha256"), [("v1", PACKAGE), ("V1", SHA), ("V1", PACKAGE)])
def test_other_bytes_or_another_spelling_of_a_version_are_refused(
    in_gate: Any, app: App, version: str, sha256: str
) -> None:
    upload_of(in_gate, app, "v1")
    with pytest.raises(Conflict) as refused:
        upload_of(in_gate, app, version, sha256)
    assert refused.value.code == "version_exists"


def test_another_app_may_have_the_same_version_and_bytes(in_gate: Any, app: App) -> None:
    upload_of(in_gate, app)
    upload_of(in_gate, make_app(name="other"))
    assert (Build.objects.count(), Artifact.objects.count()) == (2, 1)


def test_two_claims_make_one_build(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    claimed = in_gate(services.claim_build, build_id=build.pk, worker="w1")
    assert (claimed.build.status, claimed.build.attempt, claimed.build.worker) == ("building", 1, "w1")
    with pytest.raises(Conflict) as refused:
        in_gate(services.claim_build, build_id=build.pk, worker="w2")
    assert refused.value.code == "not_claimable"
    build.refresh_from_db()
    assert build.worker == "w1"
    assert claimed.token not in str(Build.objects.values().get())


def test_a_build_that_is_gone_cannot_be_claimed(in_gate: Any, app: App) -> None:
    with pytest.raises(Conflict):
        in_gate(services.claim_build, build_id=4711, worker="w")


def test_success_inserts_one_release_and_wishes_for_it(in_gate: Any, app: App, package: BuildResult) -> None:
    build = upload_of(in_gate, app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    done = in_gate(services.finish_build, build_id=build.pk, token=token, result=package)
    again = in_gate(services.finish_build, build_id=build.pk, token=token, result=package)
    assert done.release_number == again.release_number == 1
    release = Release.objects.get()
    assert (release.number, release.version, release.package_id) == (1, "1", package.package_sha256)
    assert release.config.number == app.config_number
    app.refresh_from_db()
    assert (app.desired_release, app.deploy_kind, app.deploy_serial) == (1, "deploy", 1)


def test_deploy_false_wishes_for_nothing(in_gate: Any, app: App, package: BuildResult) -> None:
    build = upload_of(in_gate, app, deploy=False)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    in_gate(services.finish_build, build_id=build.pk, token=token, result=package)
    app.refresh_from_db()
    assert (app.desired_release, app.deploy_serial) == (None, 0)


def test_an_older_upload_that_takes_longer_does_not_push_a_newer_one_aside(
    in_gate: Any, app: App, package: BuildResult
) -> None:
    first, second = upload_of(in_gate, app, "1"), upload_of(in_gate, app, "2")
    tokens = {b.pk: in_gate(services.claim_build, build_id=b.pk, worker="w").token for b in (first, second)}
    for build in (second, first):
        in_gate(services.finish_build, build_id=build.pk, token=tokens[build.pk], result=package)
    app.refresh_from_db()
    wanted = Release.objects.get(app=app, number=app.desired_release)
    assert wanted.version == "2"
    assert Release.objects.count() == 2


def test_a_success_without_its_package_is_refused_and_may_be_repeated(
    in_gate: Any, app: App, artifacts: Any, upload: Any
) -> None:
    build = upload_of(in_gate, app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    given = upload(b"late")
    result = BuildResult("succeeded", "static", given.sha256, given.size, {"web": "x"})
    with pytest.raises(Conflict) as refused:
        in_gate(services.finish_build, build_id=build.pk, token=token, result=result)
    assert refused.value.code == "package_missing"
    artifacts.put(given)
    assert in_gate(services.finish_build, build_id=build.pk, token=token, result=result).status == "succeeded"


def test_a_failed_build_frees_its_version(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    result = BuildResult("failed", error_code="no_builder", error_detail="x" * 5000)
    failed = in_gate(services.finish_build, build_id=build.pk, token=token, result=result)
    assert (failed.status, failed.version_key, failed.error_code) == ("failed", None, "no_builder")
    assert len(failed.error_detail) == 2000
    assert upload_of(in_gate, app, "1", PACKAGE).pk != build.pk


def test_a_queued_build_is_cancelled_at_once_and_frees_its_version(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    cancelled = in_gate(services.cancel_build, build=build)
    assert (cancelled.status, cancelled.version_key) == ("cancelled", None)
    with pytest.raises(Conflict):
        in_gate(services.claim_build, build_id=build.pk, worker="w")
    assert in_gate(services.cancel_build, build=cancelled).status == "cancelled"
    upload_of(in_gate, app)


def test_cancel_wins_over_late_success(in_gate: Any, app: App, package: BuildResult) -> None:
    build = upload_of(in_gate, app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    build.refresh_from_db()
    asked = in_gate(services.cancel_build, build=build)
    assert (asked.status, asked.cancel_requested) == ("building", True)
    renewal = in_gate(services.renew_lease, build_id=build.pk, token=token, builder="", steps=[])
    assert renewal.cancel
    done = in_gate(services.finish_build, build_id=build.pk, token=token, result=package)
    assert (done.status, done.release_number) == ("cancelled", None)
    assert not Release.objects.exists()


def test_what_has_ended_cannot_be_cancelled(in_gate: Any, app: App, package: BuildResult) -> None:
    build = upload_of(in_gate, app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    done = in_gate(services.finish_build, build_id=build.pk, token=token, result=package)
    with pytest.raises(Conflict) as refused:
        in_gate(services.cancel_build, build=done)
    assert refused.value.code == "build_ended"


def lose(in_gate: Any, build: Build, **more: Any) -> str:
    build.refresh_from_db()
    became: str = in_gate(
        services.declare_lost, build_id=build.pk, attempt=build.attempt, lease_until=build.lease_until, **more
    )
    return became


def test_a_lost_worker_is_replaced_and_can_no_longer_speak(in_gate: Any, app: App, package: BuildResult) -> None:
    build = upload_of(in_gate, app)
    old = in_gate(services.claim_build, build_id=build.pk, worker="w1").token
    assert lose(in_gate, build) == "queued"
    new = in_gate(services.claim_build, build_id=build.pk, worker="w2")
    assert new.build.attempt == 2
    for verb, arguments in (
        (services.finish_build, {"result": package}),
        (services.renew_lease, {"builder": "", "steps": []}),
    ):
        with pytest.raises(Conflict) as refused:
            in_gate(verb, build_id=build.pk, token=old, **arguments)
        assert refused.value.code == "lease_lost"
    assert in_gate(services.finish_build, build_id=build.pk, token=new.token, result=package).status == "succeeded"
    assert "worker w1 was lost" in BuildLogLine.objects.get(build_id=build.pk).line


def test_a_lost_build_fails_after_its_last_attempt_and_frees_its_version(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    became = []
    for _ in range(settings.CONFIG.limits.build_attempts):
        in_gate(services.claim_build, build_id=build.pk, worker="w")
        became.append(lose(in_gate, build))
    assert became == ["queued"] * (settings.CONFIG.limits.build_attempts - 1) + ["failed"]
    build.refresh_from_db()
    assert (build.error_code, build.version_key) == ("worker_lost", None)


def test_a_renewal_in_between_keeps_the_build(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    build.refresh_from_db()
    in_gate(services.renew_lease, build_id=build.pk, token=token, builder="node", steps=[])
    became = in_gate(services.declare_lost, build_id=build.pk, attempt=1, lease_until=build.lease_until)
    assert became == "not lost"
    assert in_gate(services.declare_lost, build_id=build.pk, attempt=0, lease_until=None) == "not lost"


def test_a_lost_build_that_was_to_be_cancelled_is_cancelled(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    in_gate(services.claim_build, build_id=build.pk, worker="w")
    build.refresh_from_db()
    in_gate(services.cancel_build, build=build)
    assert lose(in_gate, build) == "cancelled"


def test_a_deadline_ends_a_build_for_good(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    in_gate(services.claim_build, build_id=build.pk, worker="w")
    assert lose(in_gate, build, reason="build_deadline") == "failed"
    build.refresh_from_db()
    assert build.error_code == "build_deadline"


def test_most_heartbeats_write_nothing(in_gate: Any, app: App) -> None:
    build = upload_of(in_gate, app)
    in_gate(services.claim_build, build_id=build.pk, worker="w")
    build.refresh_from_db()
    start, lease = clock.now(), settings.CONFIG.timings.build_lease_s
    soon, later = start + dt.timedelta(seconds=2), start + dt.timedelta(seconds=lease / 2)
    assert not services.renewal_of(build, soon, "", []).write
    assert services.renewal_of(build, soon, "", [{"name": "fetch", "status": "running"}]).write
    assert services.renewal_of(build, later, "", []).write
    assert services.renewal_of(build, start - dt.timedelta(hours=1), "", []).write  # a clock that jumped back


def test_the_quota_counts_running_builds_when_one_is_claimed(in_gate: Any, fence: None) -> None:
    app = make_app(make_org(max_builds_at_once=1))
    first, second = upload_of(in_gate, app, "1"), upload_of(in_gate, app, "2", PACKAGE)
    token = in_gate(services.claim_build, build_id=first.pk, worker="w").token
    with pytest.raises(Conflict) as refused:
        in_gate(services.claim_build, build_id=second.pk, worker="w")
    assert refused.value.code == "not_claimable"
    in_gate(services.finish_build, build_id=first.pk, token=token, result=BuildResult("failed"))
    in_gate(services.claim_build, build_id=second.pk, worker="w")


def test_an_app_that_is_being_deleted_builds_nothing(in_gate: Any, app: App, package: BuildResult) -> None:
    waiting, running = upload_of(in_gate, app, "1"), upload_of(in_gate, app, "2", PACKAGE)
    token = in_gate(services.claim_build, build_id=running.pk, worker="w").token
    with gate.maintenance("test"):
        App.objects.filter(pk=app.pk).update(desired_state=DesiredState.DELETED)
    app.refresh_from_db()
    with pytest.raises(Conflict):
        in_gate(services.claim_build, build_id=waiting.pk, worker="w")
    with pytest.raises(Conflict):
        upload_of(in_gate, app, "3", "c" * 64)
    assert in_gate(services.finish_build, build_id=running.pk, token=token, result=package).status == "cancelled"


def test_a_deposed_leader_finishes_nothing(in_gate: Any, app: App, package: BuildResult, lease: Any) -> None:
    build = upload_of(in_gate, app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    lease.hold(epoch=0)
    with pytest.raises(Exception, match="not the leader"):
        gate.run(
            lambda tx: services.finish_build(tx, build_id=build.pk, token=token, result=package),
            actor=system("test"),
            cause="test",
        )
    assert not Release.objects.exists()
    build.refresh_from_db()
    assert build.status == "building"


def test_a_version_key_fits_its_column() -> None:
    assert len(version_key(2**63 - 1, "v" * 64)) <= 100

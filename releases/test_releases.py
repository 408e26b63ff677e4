"""Releases are numbered, never changed, and a rollback restores code and configuration alike."""

from __future__ import annotations

from typing import Any

import pytest

from apps.models import App, ConfigRevision
from consensus import gate
from omni.kernel.errors import Conflict, NotFound
from omni.testing.factories import make_artifact, make_build, make_config, make_instance, make_release
from releases import build_log, services
from releases.models import Artifact, Build, BuildLogLine, Release

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.database]


def desire(app: App, **values: Any) -> None:
    with gate.maintenance("test"):
        App.objects.filter(pk=app.pk).update(**values)
    app.refresh_from_db()


def new_config(app: App, number: int, **values: Any) -> ConfigRevision:
    desire(app, config_number=number, **values)
    return make_config(app, number, {"NUMBER": str(number)})


def test_the_newest_release_of_a_version_is_meant(app: App) -> None:
    first = make_release(app, "v1")
    again = make_release(app, "v1", build=first.build)
    make_release(app, "v2")
    assert services.release_for(app, version="v1").pk == again.pk
    assert services.release_for(app, number=1).pk == first.pk
    for wrong in ({"version": "V1"}, {"version": "v3"}, {"number": 9}):
        with pytest.raises(NotFound):
            services.release_for(app, **wrong)


def test_a_configuration_change_is_the_next_release_of_the_same_version(in_gate: Any, app: App) -> None:
    old = make_release(app, "v1")
    make_release(app, "v2")
    desire(app, desired_release=old.number)
    release = in_gate(services.change_configuration, app=app, config=new_config(app, 2))
    assert (release.number, release.version, release.config.number) == (3, "v1", 2)
    assert (release.package_id, release.build_id) == (old.package_id, old.build_id)
    old.refresh_from_db()
    assert old.config.number == 1


def test_a_configuration_change_before_the_first_release_makes_none(in_gate: Any, app: App) -> None:
    assert in_gate(services.change_configuration, app=app, config=new_config(app, 2)) is None


def test_deploying_a_version_takes_the_current_configuration(in_gate: Any, app: App) -> None:
    old = make_release(app, "v1")
    assert in_gate(services.deploy_version, app=app, version="v1").pk == old.pk
    new_config(app, 2)
    release = in_gate(services.deploy_version, app=app, version="v1")
    assert (release.number, release.config.number, release.package_id) == (2, 2, old.package_id)
    assert in_gate(services.deploy_version, app=app, version="v1").pk == release.pk


def test_a_rollback_restores_code_and_configuration_under_new_numbers(in_gate: Any, app: App) -> None:
    old = make_release(app, "v1")
    new_config(app, 2, memory_mb=128)
    newer = make_release(app, "v2")
    desire(app, desired_release=newer.number)
    release = in_gate(services.rollback_release, app=app)
    assert (release.number, release.version, release.package_id) == (3, "v1", old.package_id)
    assert release.config.number == 3
    app.refresh_from_db()
    assert (app.config_number, app.memory_mb) == (3, old.config.memory_mb)


def test_a_rollback_goes_where_it_is_told_to(in_gate: Any, app: App) -> None:
    for version in ("v1", "v2", "v3"):
        make_release(app, version)
    desire(app, desired_release=3)
    assert in_gate(services.rollback_release, app=app, version="v1").version == "v1"
    app.refresh_from_db()
    assert in_gate(services.rollback_release, app=app, number=2).version == "v2"
    with pytest.raises(NotFound):
        in_gate(services.rollback_release, app=app, version="v9")


def test_there_may_be_nothing_to_go_back_to(in_gate: Any, app: App) -> None:
    make_release(app)
    desire(app, desired_release=1)
    with pytest.raises(Conflict) as refused:
        in_gate(services.rollback_release, app=app)
    assert refused.value.code == "nothing_to_roll_back"


def test_a_deleted_app_leaves_nothing_but_what_others_share(in_gate: Any, app: App) -> None:
    from omni.testing.factories import make_app

    shared = make_artifact()
    other = make_build(make_app(name="other"), artifact=shared)
    for number in range(1, 6):
        make_release(
            app, str(number), build=make_build(app, str(number), artifact=shared if number == 1 else make_artifact())
        )
    make_build(app, "9", status="failed", version_key=None)
    build_log.append(Build.objects.filter(app=app).latest("pk").pk, 1, 0, [(1, 0, "hello")])
    mine = set(Build.objects.filter(app=app).values_list("artifact_id", flat=True))
    mine |= set(Release.objects.filter(app=app).values_list("package_id", flat=True))
    gone: set[str] = set()
    rounds = 0
    while True:
        purged = in_gate(services.purge_app, app=app, limit=2)
        gone |= {digest for digest, _ in purged.artifacts}
        rounds += 1
        if purged.done:
            break
    assert rounds > 3
    assert not Release.objects.exists()
    assert list(Build.objects.all()) == [other]
    assert gone == mine - {shared.pk}
    assert set(Artifact.objects.filter(pk__in=mine).values_list("pk", flat=True)) == {shared.pk}
    assert not BuildLogLine.objects.exists()


def test_purging_an_empty_app_is_done_at_once(in_gate: Any, app: App) -> None:
    assert in_gate(services.purge_app, app=app).done


def test_only_old_unwanted_artifacts_are_collected(in_gate: Any, app: App) -> None:
    from omni.kernel import clock

    wanted = make_instance(app).release
    free = make_artifact()
    before = clock.now()
    young = make_artifact()
    purged = in_gate(services.collect_artifacts, wanted_before=before)
    assert [digest for digest, _ in purged.artifacts] == [free.pk]
    left = set(Artifact.objects.values_list("pk", flat=True))
    assert left == {young.pk, wanted.artifact_id, wanted.package_id}

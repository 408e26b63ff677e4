"""Remedies: what they set off, when they are not begun, and how their outcome is known."""

from __future__ import annotations

from typing import Any

import pytest

from consensus import gate
from instances.models import Deployment
from instances.tasks.models import Task
from omni.kernel.context import system
from omni.kernel.models import Event
from omni.outgoing import webhooks
from omni.outgoing.webhooks import Outcome
from omni.testing.factories import make_app, make_release, make_service
from services import mending
from services.conftest import Leader
from services.models import RemedyRun, Service

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


def ill(leader: Leader, **remedy: Any) -> Service:
    service = make_service("db", remedy={"after_s": 0.0, "backoff_s": 60.0, "max_per_hour": 3, **remedy})
    leader.say((service, "failing"))
    return service


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the calls that a webhook remedy made."""
    had: list[str] = []
    monkeypatch.setattr(
        webhooks, "deliver", lambda _to, m: had.append(m.id) or Outcome(True, True, 200, "answered 200")
    )
    return had


def test_a_remedy_runs_once_and_then_waits_longer_each_time(leader, mended):
    ill(leader, type="webhook", url="http://10.0.0.7/mend")
    mending.tick()
    mending.tick()
    assert len(mended) == 1
    run = RemedyRun.objects.get()
    assert (run.status, run.active_key, run.detail) == ("succeeded", None, "answered 200")
    leader.offset_s += 70
    mending.tick()
    assert len(mended) == 2
    leader.offset_s += 70  # the second pause is twice as long
    mending.tick()
    assert len(mended) == 2
    leader.offset_s += 70
    mending.tick()
    assert len(mended) == 3
    leader.offset_s += 1000  # three in an hour
    mending.tick()
    assert len(mended) == 3
    kinds = list(Event.objects.filter(kind__startswith="remedy.").order_by("key").values_list("kind", flat=True))
    assert kinds == ["remedy.started", "remedy.succeeded"] * 3
    shown = leader.cluster.call("GET", "/services/db/remedies").json()["items"]
    assert len(shown) == 3


def test_nothing_is_mended_whose_dependency_is_the_cause(leader, mended):
    database = make_service("database")
    remedy = {"type": "webhook", "url": "http://10.0.0.7/mend", "after_s": 0.0, "backoff_s": 60.0, "max_per_hour": 3}
    app = make_service("app", depends_on=["database"], remedy=remedy)
    leader.say((database, "failing"), (app, "failing"))
    leader.tick(60)
    mending.tick()
    assert mended == []


def test_an_app_is_restarted_by_a_deployment_and_its_end_is_the_outcome(leader):
    app = make_app(leader.cluster.org, "web", desired_state="running")
    release = make_release(app, "v1")
    with gate.maintenance("test"):
        type(app).objects.filter(pk=app.pk).update(desired_release=release.number)
    ill(leader, type="restart_app", app=app.pk)
    mending.tick()
    run = RemedyRun.objects.get()
    assert (run.status, run.type) == ("running", "restart_app"), run.detail
    deployment = Deployment.objects.get(pk=run.deployment_id)
    assert deployment.kind == "restart"
    leader.offset_s += 120
    mending.tick()  # never two at once
    assert RemedyRun.objects.count() == 1
    with gate.maintenance("test"):
        Deployment.objects.filter(pk=deployment.pk).update(status="succeeded", active_key=None)
    mending.tick()
    run.refresh_from_db()
    assert (run.status, run.active_key) == ("succeeded", None)


def deployed(leader: Leader, name: str = "web") -> Any:
    app = make_app(leader.cluster.org, name, desired_state="running")
    release = make_release(app, "v1")
    with gate.maintenance("test"):
        type(app).objects.filter(pk=app.pk).update(desired_release=release.number)
    return app


def test_a_task_of_an_app_is_run_and_its_end_is_the_outcome(leader):
    app = deployed(leader)
    task = {"type": "run_task", "command": ["python", "mend.py", "two words"], "timeout_s": 60.0, "app": app.pk}
    ill(leader, **task)
    mending.tick()
    run = RemedyRun.objects.get()
    row = Task.objects.get(pk=run.task_id)
    assert (run.status, row.command, row.timeout_s) == ("running", "python mend.py 'two words'", 60.0)
    assert Event.objects.get(kind="remedy.started").change["task"] == row.pk
    leader.offset_s += 500
    mending.tick()
    assert Task.objects.count() == 1, "never two at once"
    for status, ended in (("failed", "failed"), ("succeeded", "succeeded")):
        with gate.maintenance("test"):
            Task.objects.filter(pk=RemedyRun.objects.latest("id").task_id).update(status=status, reason="it ended")
        mending.tick()
        run = RemedyRun.objects.filter(finished_at__isnull=False).latest("id")
        assert (run.status, run.detail) == (ended, f"task {run.task_id} {status}: it ended")
        leader.offset_s += 70  # the pause
        mending.tick()
    assert Task.objects.count() == 2, "the second pause is twice as long"
    leader.offset_s += 70
    mending.tick()
    assert Task.objects.count() == 3
    assert leader.cluster.call("GET", "/services/db/remedies").json()["items"][0]["task"] is not None


def test_an_app_without_a_release_runs_no_task_and_the_remedy_says_so(leader):
    app = make_app(leader.cluster.org, "bare")
    ill(leader, type="run_task", command=["x"], timeout_s=60.0, app=app.pk)
    mending.tick()
    run = RemedyRun.objects.get()
    assert (run.status, run.task_id) == ("failed", None)
    assert "Nothing is deployed yet" in run.detail


def test_two_services_never_mend_the_same_app_at_once(leader):
    app = deployed(leader)
    ill(leader, type="restart_app", app=app.pk)
    other = make_service("other", remedy={"type": "restart_app", "app": app.pk, "after_s": 0.0, "backoff_s": 60.0,
                                          "max_per_hour": 3})  # fmt: skip
    leader.say((other, "failing"))
    mending.tick()
    assert RemedyRun.objects.count() == 1
    with gate.maintenance("test"):
        Deployment.objects.update(status="succeeded", active_key=None)
    mending.tick()
    assert list(RemedyRun.objects.order_by("id").values_list("service__name", "status")) == [
        ("db", "succeeded"), ("other", "running"),
    ]  # fmt: skip


def test_a_remedy_that_cannot_begin_says_why(leader):
    ill(leader, type="restart_app", app=987654)
    mending.tick()
    run = RemedyRun.objects.get()
    assert (run.status, run.detail) == ("failed", "the app is gone")


@pytest.mark.slow
def test_a_remedy_that_nobody_ends_is_failed_at_its_deadline(leader):
    service = ill(leader, type="webhook", url="http://10.0.0.7/mend")
    gate.run(lambda tx: mending.begin(tx, service, "test"), actor=system("test"), cause="test")  # and the leader died
    mending.tick()
    assert RemedyRun.objects.get().status == "running"
    leader.offset_s += mending.DEADLINE_S + 1
    mending.tick()
    assert RemedyRun.objects.order_by("id")[0].status == "failed"

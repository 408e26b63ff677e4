"""The relay: a doorbell that never forgets a build and never lets a frozen broker freeze anybody else."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from apps.models import App
from omni.kernel import clock
from omni.launch.plan import valkey_binary
from omni.testing.factories import make_app, make_artifact, make_build, make_org
from releases import services
from releases.models import Artifact, Build
from releases.relay import ARTIFACT_GRACE, BrokerUnreachable, Relay, celery_publisher, collect_garbage

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.database]


class Bell:
    """A broker that remembers what was published, or refuses."""

    def __init__(self) -> None:
        self.rung: list[list[int]] = []
        self.broken = False

    def __call__(self, build_ids: list[int]) -> None:
        if self.broken:
            raise BrokerUnreachable("out of order")
        self.rung.append(build_ids)


class Time:
    """Monotonic time that the test moves."""

    def __init__(self) -> None:
        self.value = 1000.0

    def __call__(self) -> float:
        return self.value


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Time:
    moved = Time()
    monkeypatch.setattr("releases.relay.clock.monotonic", moved)
    return moved


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def relay(bell: Bell, lease: Any, now: Time, artifacts: Any) -> Relay:
    lease.hold(1)  # valid by the moved clock
    return Relay(bell)


def test_a_queued_build_is_published_once_and_again_when_nobody_came(
    relay: Relay, bell: Bell, app: App, now: Time
) -> None:
    build = make_build(app)
    assert relay.tick() == "1 published"
    assert relay.tick() == "idle"
    now.value += settings.CONFIG.timings.build_republish_s
    relay.tick()
    assert bell.rung == [[build.pk], [build.pk]]


def test_what_is_claimed_or_ended_is_not_published(relay: Relay, bell: Bell, app: App) -> None:
    for status in ("building", "succeeded", "failed", "cancelled"):
        make_build(app, status, status=status)
    relay.tick()
    assert bell.rung == []


def test_a_broker_that_is_away_loses_nothing(relay: Relay, bell: Bell, app: App) -> None:
    build = make_build(app)
    bell.broken = True
    assert "broker unreachable" in relay.tick()
    bell.broken = False
    assert relay.tick() == "1 published"
    assert bell.rung == [[build.pk]]


def test_another_leader_publishes_again(relay: Relay, bell: Bell, app: App) -> None:
    build = make_build(app)
    relay.tick()
    Relay(bell).tick()
    assert bell.rung == [[build.pk], [build.pk]]


def test_no_more_is_published_than_an_org_may_build_at_once(relay: Relay, bell: Bell, fence: None) -> None:
    app, other = make_app(make_org(max_builds_at_once=2)), make_app()
    make_build(app, "0", status="building")
    waiting = [make_build(app, str(i)) for i in (1, 2, 3)]
    free = make_build(other)
    relay.tick()
    assert bell.rung == [[waiting[0].pk, free.pk]]


def test_a_silent_worker_loses_its_build_after_a_whole_lease(
    relay: Relay, bell: Bell, app: App, now: Time, in_gate: Any
) -> None:
    build = make_build(app)
    relay.tick()
    in_gate(services.claim_build, build_id=build.pk, worker="w")
    relay.tick()
    now.value += settings.CONFIG.timings.build_lease_s
    assert relay.tick() == "idle"
    now.value += 1
    assert relay.tick() == "1 lost, 1 published"
    build.refresh_from_db()
    assert (build.status, build.attempt) == ("queued", 1)
    assert bell.rung == [[build.pk], [build.pk]]


def test_a_worker_that_renews_keeps_its_build_whatever_the_wall_clock_says(
    relay: Relay, app: App, now: Time, in_gate: Any
) -> None:
    build = make_build(app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    for i in range(10):
        relay.tick()
        now.value += settings.CONFIG.timings.build_lease_s * 0.7
        in_gate(services.renew_lease, build_id=build.pk, token=token, builder=str(i), steps=[])
    assert relay.tick() == "idle"


def test_a_worker_that_renews_for_ever_meets_the_deadline(relay: Relay, app: App, now: Time, in_gate: Any) -> None:
    build = make_build(app)
    token = in_gate(services.claim_build, build_id=build.pk, worker="w").token
    relay.tick()
    now.value += settings.CONFIG.limits.build_wall_s + 200
    in_gate(services.renew_lease, build_id=build.pk, token=token, builder="x", steps=[])
    assert relay.tick() == "1 lost"
    build.refresh_from_db()
    assert (build.status, build.error_code) == ("failed", "build_deadline")


def test_garbage_is_what_nobody_refers_to_for_a_while(artifacts: Any, upload: Any, app: App) -> None:
    wanted, free, stray = upload(), upload(), upload()
    for given in (wanted, free, stray):
        artifacts.put(given)
    make_build(app, artifact=make_artifact(sha256=wanted.sha256))
    make_artifact(sha256=free.sha256)
    assert collect_garbage(clock.now()) == 0
    assert collect_garbage(clock.now() + ARTIFACT_GRACE * 2) >= 2
    assert list(artifacts.local_digests()) == [wanted.sha256]
    assert Artifact.objects.filter(pk=wanted.sha256).exists()
    assert not Artifact.objects.filter(pk=free.sha256).exists()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real broker on a socket of its own."""
    argv = [valkey_binary(settings.CONFIG), "--port", "0", "--unixsocket", str(tmp_path / "s"), "--save", "", "--dir",
            str(tmp_path)]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "s").exists)
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def wait_for(condition: Any, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_frozen_broker_holds_up_nobody_but_the_relay(valkey: Any, tmp_path: Path, app: App, in_gate: Any) -> None:
    from celery import Celery
    from redis import Redis

    celery = Celery("test", broker=f"redis+socket://{tmp_path / 's'}")
    publish = celery_publisher(celery, answer_timeout_s=1.0)
    outcome: list[Any] = []

    def ring(build_ids: list[int]) -> None:
        try:
            publish(build_ids)
            outcome.append("published")
        except BrokerUnreachable as error:
            outcome.append(error)

    os.kill(valkey.pid, signal.SIGSTOP)
    relay = threading.Thread(target=ring, args=([1],))
    relay.start()
    started = time.monotonic()
    in_gate(
        services.accept_upload,
        app=app,
        version="1",
        sha256="a" * 64,
        size=1,
        media_type="application/gzip",
        deploy=True,
    )
    assert time.monotonic() - started < 1.0
    relay.join(timeout=10)
    assert isinstance(outcome[0], BrokerUnreachable)
    os.kill(valkey.pid, signal.SIGCONT)
    build = Build.objects.get()
    ring([build.pk])
    assert outcome[1] == "published"
    queue = Redis(unix_socket_path=str(tmp_path / "s"))
    assert queue.llen("celery") >= 1
    assert str(build.pk) in str(queue.lindex("celery", 0))

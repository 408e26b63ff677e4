"""The leader dies at every step of a rollout: whoever comes next has the database alone, and ends where it would have.

The rollouts are real rows; agents are played by hand. A leader that dies is a new `Controller` under the next epoch.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consensus import gate
from consensus.models import Fence
from instances.conftest import Platform
from instances.models import Deployment, Instance
from instances.test_deployments import deployed
from omni.kernel.errors import NotLeader
from omni.kernel.models import Event

pytestmark = [pytest.mark.database, pytest.mark.slow, pytest.mark.django_db(databases=["default", "telemetry"])]

STRATEGIES = {
    "rolling": {"type": "rolling", "min_ready_s": 2},
    "recreate": {"type": "recreate"},
    "blue_green": {"type": "blue_green", "keep_warm_s": 30, "bake_s": 5},
    "canary": {"type": "canary", "canary_percent": 40, "bake_s": 12},
}
ROUNDS = 120


def another_leader(platform: Platform, lease: Any, epoch: int) -> None:
    """The one before loses its lease in the middle of things; what it still tries changes nothing."""
    lease.lose(None)
    before = Event.objects.count()
    with contextlib.suppress(NotLeader):
        platform.controller.tick()
    assert Event.objects.count() == before, "a leader without a lease wrote"
    with gate.maintenance("a new leader claims"):
        Fence.objects.update(epoch=epoch)
    lease.hold(epoch)
    platform.restart_leader()


def running(platform: Platform, count: int, kind: str) -> Any:
    """An app that has v1 behind it and deploys what comes next in this way."""
    app = deployed(platform, count)
    assert platform.call("PATCH", f"/app/{app.pk}", {"strategy": STRATEGIES[kind]}).status_code == 200
    return app


def ended(deployment: dict[str, Any]) -> bool:
    row = Deployment.objects.get(pk=deployment["id"])
    return row.status in ("succeeded", "reverted", "failed", "cancelled") and row.new_percent is None


def walk(platform: Platform, lease: Any, deployment: dict[str, Any], *, floor: int, app: Any) -> set[str]:
    """A new leader for every single step, until the deployment is over; the phases that were seen."""
    seen = set()
    for epoch in range(2, ROUNDS):
        shown = platform.call("GET", deployment["links"]["self"]).json()
        seen.add(str(shown["phase"]))
        if ended(deployment) and len(platform.serving(app)) == app.instances:
            return seen
        another_leader(platform, lease, epoch)
        platform.tick(1)
        assert len(platform.route(app)["stable"] + platform.route(app)["canary"]) >= floor, "below the floor"
        platform.agents_act()
        platform.later(3)
    raise AssertionError(f"not over after {ROUNDS} leaders: {shown['status']} {shown['phase']}")


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_rollout_ends_well_though_each_leader_makes_but_one_step(platform, lease, kind):
    app = running(platform, 3, kind)
    made = platform.deploy(app, "v2")
    seen = walk(platform, lease, made, floor=0 if kind == "recreate" else 3, app=app)
    assert platform.serving(app) == ["v2"] * 3
    phases = {"canary": {"starting", "baking", "rolling"}, "blue_green": {"starting", "baking", "warm"}}
    assert phases.get(kind, {"rolling"}) <= seen
    assert Deployment.objects.filter(app=app).count() == 2


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_bad_release_is_reverted_though_each_leader_makes_but_one_step(platform, lease, kind):
    app = running(platform, 3, kind)
    platform.broken = {"v2"}
    made = platform.deploy(app, "v2")
    walk(platform, lease, made, floor=0 if kind == "recreate" else 3, app=app)
    row = Deployment.objects.get(pk=made["id"])
    assert (row.status, row.error_code) == ("reverted", "instance_failed")
    assert row.evidence["log"] == ["boom"]
    assert platform.serving(app) == ["v1"] * 3


@pytest.mark.parametrize("kind", ["rolling", "canary", "blue_green"])
@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_verb_holds_though_the_leader_that_took_it_dies_at_once(platform, lease, kind, verb):
    app = running(platform, 3, kind)
    made = platform.deploy(app, "v2")
    for epoch in (2, 3):
        platform.tick(1)
        platform.agents_act()
        another_leader(platform, lease, epoch)
    assert platform.call("POST", made["links"][verb]).status_code == 202
    another_leader(platform, lease, 4)
    if verb == "pause":
        for _ in range(10):
            platform.later(9)
            platform.tick(1)
            platform.agents_act()
        assert platform.call("GET", made["links"]["self"]).json()["phase"] == "paused"
        assert platform.call("POST", made["links"]["resume"]).status_code == 202
        another_leader(platform, lease, 5)
    walk(platform, lease, made, floor=3, app=app)
    assert platform.serving(app) == ["v1" if verb == "cancel" else "v2"] * 3


@pytest.mark.parametrize("kind", ["canary", "blue_green"])
def test_a_promotion_holds_though_the_leader_that_took_it_dies_at_once(platform, lease, kind):
    app = deployed(platform, 3)
    by_hand = {**STRATEGIES[kind], "promote": "manual"}
    assert platform.call("PATCH", f"/app/{app.pk}", {"strategy": by_hand}).status_code == 200
    made = platform.deploy(app, "v2")
    platform.settle()
    platform.later(13)
    platform.settle()
    assert platform.call("GET", made["links"]["self"]).json()["phase"] == "awaiting_promotion"
    another_leader(platform, lease, 2)
    assert platform.call("POST", made["links"]["promote"]).status_code == 202
    another_leader(platform, lease, 3)
    walk(platform, lease, made, floor=3, app=app)
    assert platform.serving(app) == ["v2"] * 3


STEPS = st.lists(
    st.sampled_from(["tick", "tick", "agents", "agents", "leader", "later", "pause", "resume", "promote", "scale"]),
    max_size=25,
)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS, st.sampled_from(sorted(STRATEGIES)), st.booleans())
def test_any_interleaving_of_steps_leaders_and_verbs_converges(platform, lease, steps, kind, good):
    epoch = Fence.objects.get().epoch
    app = running(platform, 2, kind)
    platform.broken = set() if good else {"v2"}
    made, count = platform.deploy(app, "v2"), 2
    for what in steps:
        if what == "tick":
            platform.tick(1)
        elif what == "agents":
            platform.agents_act()
        elif what == "later":
            platform.later(6)
        elif what == "leader":
            epoch += 1
            another_leader(platform, lease, epoch)
        elif what == "scale":
            count = 5 - count
            answer = platform.call("POST", f"/app/{app.pk}/scale", {"instances": count})
            made = answer.json() if answer.status_code == 202 else made
        else:
            platform.call("POST", made["links"][what])
    platform.call("POST", made["links"]["resume"])
    for _ in range(60):
        platform.settle()
        platform.later(9)
        if not Deployment.objects.filter(app=app, active_key__isnull=False).exists():
            break
    platform.later(301)  # what was kept warm goes
    platform.settle()
    newest = Deployment.objects.filter(app=app).order_by("-id")[0]
    assert platform.serving(app) == ["v2" if good else "v1"] * count, newest.status
    assert Deployment.objects.filter(app=app, active_key__isnull=False).count() == 0
    assert Instance.objects.filter(app=app, desired="run").count() == count
    platform.call("DELETE", f"/app/{app.pk}")  # room for the next
    platform.settle()

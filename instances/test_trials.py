"""Canary and blue_green: two releases side by side, with real rows, gate and controller."""

from __future__ import annotations

import pytest

from instances.conftest import BLUE_GREEN, CANARY, answered, detail, of
from instances.models import Instance
from instances.test_deployments import deployed
from omni.kernel.models import Event

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


# -- canary


def test_a_canary_takes_its_share_beside_all_of_the_old_and_rolls_on_after_its_trial(platform):
    app = deployed(platform, 4, strategy=CANARY)
    made = platform.deploy(app, "v2")
    assert (made["status"], made["phase"], made["percent_to_new"]) == ("pending", "pending", 0)
    platform.tick()
    assert platform.route(app) == {"canary_percent": 0, "stable": of(app, "v1"), "canary": []}
    platform.settle()
    assert len(of(app, "v2")) == 1
    assert len(of(app, "v1")) == 4
    assert platform.route(app) == {"canary_percent": 25, "stable": of(app, "v1"), "canary": of(app, "v2")}
    answered(app, of(app, "v1"), 100)
    answered(app, of(app, "v2"), 100)
    shown = detail(platform, made)
    assert (shown["phase"], shown["comparison"]["new"]["requests"], shown["comparison"]["old"]["requests"]) == (
        "baking", 100, 400,
    )  # fmt: skip
    platform.later(61)
    platform.settle()
    assert platform.serving(app) == ["v2"] * 4
    shown = detail(platform, made)
    assert (shown["status"], shown["phase"], shown["percent_to_new"]) == ("succeeded", None, None)
    assert shown["comparison"]["new"]["requests"] == 100
    assert {"bake", "promote", "finish"} <= {step["what"] for step in shown["steps"]}
    assert platform.route(app) == {"canary_percent": 0, "stable": of(app, "v2"), "canary": []}


def test_a_canary_that_fails_more_requests_than_the_old_release_is_stopped(platform):
    app = deployed(platform, 4, strategy=CANARY)
    made = platform.deploy(app, "v2")
    platform.settle()
    before = of(app, "v1")
    answered(app, of(app, "v1"), 100, failed=2)
    answered(app, of(app, "v2"), 100, failed=30)
    platform.later(3)
    platform.tick()
    assert platform.route(app) == {"canary_percent": 0, "stable": before, "canary": []}
    platform.settle()
    shown = detail(platform, made)
    assert (shown["status"], shown["error"]["code"]) == ("reverted", "canary_errors")
    assert "30 of 100 requests to the canary failed" in shown["error"]["detail"]
    assert shown["comparison"]["new"]["failed"] == 30
    assert shown["evidence"]["instance_id"]
    assert of(app, "v1") == before
    assert of(app, "v2") == []


def test_a_canary_waits_for_a_promotion_by_hand_as_long_as_it_takes(platform):
    app = deployed(platform, 2, strategy={**CANARY, "promote": "manual"})
    made = platform.deploy(app, "v2")
    platform.settle()
    for _ in range(40):
        platform.later(9)
        platform.tick()
    assert detail(platform, made)["phase"] == "awaiting_promotion"
    for _ in range(2):  # again is the same
        answer = platform.call("POST", made["links"]["promote"])
        assert answer.status_code == 202, answer.content
    assert answer.json()["phase"] == "rolling"
    platform.settle()
    assert platform.serving(app) == ["v2", "v2"]
    assert Event.objects.filter(kind="deployment.promoted").count() == 1


def test_a_newer_deployment_ends_a_canary_and_its_share_at_once(platform):
    app = deployed(platform, 2, strategy=CANARY)
    first = platform.deploy(app, "v2")
    platform.settle()
    second = platform.deploy(app, "v3")
    assert platform.route(app) == {"canary_percent": 0, "stable": of(app, "v1"), "canary": []}
    platform.settle()
    assert of(app, "v2") == []
    assert platform.route(app)["canary"] == of(app, "v3")
    gone = detail(platform, first)
    assert gone["status"] == "cancelled"
    assert "superseded" in gone["reason"]
    assert detail(platform, second)["previous_version"] == "v1"


def test_a_scaling_goes_on_with_the_trial_that_it_meets(platform):
    app = deployed(platform, 4, strategy=CANARY)
    first = platform.deploy(app, "v2")
    platform.settle()
    answer = platform.call("POST", f"/app/{app.pk}/scale", {"instances": 8}).json()
    assert (answer["carries_on"], answer["percent_to_new"]) == (first["id"], 25)
    platform.settle()
    assert (len(of(app, "v1")), len(of(app, "v2"))) == (8, 2)
    assert platform.call("POST", answer["links"]["cancel"]).status_code == 202
    platform.settle()
    assert platform.serving(app) == ["v1"] * 8


def test_what_would_let_a_trial_win_without_a_word_is_refused(platform):
    app = deployed(platform, 2, strategy=CANARY)
    platform.deploy(app, "v2")
    platform.settle()
    answer = platform.call("POST", f"/app/{app.pk}/restart")
    assert (answer.status_code, answer.json()["code"]) == (409, "release_on_trial")
    platform.call("POST", f"/app/{app.pk}/stop")
    platform.settle()
    platform.call("POST", f"/app/{app.pk}/start")
    platform.settle()
    assert platform.serving(app) == ["v1", "v1"]


# -- blue_green


def test_green_takes_no_request_until_the_switch_and_blue_is_kept_for_the_way_back(platform):
    app = deployed(platform, 3, strategy=BLUE_GREEN)
    blue = of(app, "v1")
    made = platform.deploy(app, "v2")
    platform.tick()
    green = of(app, "v2")
    assert len(green) == 3
    for row in Instance.objects.filter(id__in=green[:2]).select_related("node", "release"):
        platform._act(row)
        row.refresh_from_db()
        platform._act(row)
        platform.tick()
        assert platform.route(app)["stable"] == blue
    platform.settle()
    assert platform.route(app) == {"canary_percent": 0, "stable": green, "canary": []}
    shown = detail(platform, made)
    assert (shown["status"], shown["phase"], of(app, "v1")) == ("succeeded", "warm", blue)
    back = platform.call("POST", f"/app/{app.pk}/rollback").json()
    platform.tick(6)  # nobody has to start anything
    assert platform.route(app)["stable"] == blue
    platform.settle()
    assert detail(platform, back)["status"] == "succeeded"
    platform.later(61)
    platform.settle()
    assert (of(app, "v1"), of(app, "v2")) == (blue, [])
    assert detail(platform, back)["percent_to_new"] is None


def test_green_that_crashes_while_it_is_watched_gives_the_requests_back_to_blue(platform):
    app = deployed(platform, 2, strategy=BLUE_GREEN)
    blue = of(app, "v1")
    made = platform.deploy(app, "v2")
    platform.settle()
    green = Instance.objects.filter(id__in=of(app, "v2")).select_related("node")[0]
    platform.crash(green)
    platform.tick()
    assert detail(platform, made)["status"] == "succeeded"
    platform.crash(green)
    platform.tick(1)
    assert platform.route(app)["stable"] == blue
    platform.settle()
    shown = detail(platform, made)
    assert (shown["status"], shown["error"]["code"]) == ("reverted", "instance_crashed")
    assert shown["evidence"]["log"] == ["the last thing it said"]
    assert of(app, "v1") == blue


def test_a_switch_by_hand(platform):
    app = deployed(platform, 2, strategy={**BLUE_GREEN, "promote": "manual"})
    made = platform.deploy(app, "v2")
    assert platform.call("POST", made["links"]["promote"]).json()["phase"] == "pending"  # before it is ready
    platform.settle()
    assert platform.route(app)["stable"] == of(app, "v2")


def test_cancel_before_the_switch_touches_no_request(platform):
    app = deployed(platform, 2, strategy={**BLUE_GREEN, "promote": "manual"})
    blue = of(app, "v1")
    made = platform.deploy(app, "v2")
    platform.settle()
    assert platform.call("POST", made["links"]["cancel"]).status_code == 202
    platform.settle()
    assert platform.route(app)["stable"] == blue
    assert detail(platform, made)["status"] == "reverted"

"""The main job, end to end, as a newcomer does it: by HTTP only, with real apps."""

from __future__ import annotations

from typing import Any

import pytest

from tests.request_loop import RequestLoop
from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]


@pytest.mark.parametrize("example", ["python-flask", "node-web", "static-site"])
def test_a_real_app_is_built_served_and_measured(platform: Platform, example: str) -> None:
    api, follower = platform.api(platform.leader()), platform.api(platform.followers()[0])
    app = follower.create(example)
    build = follower.built(example, "1", archive(EXAMPLES / example))
    log = "\n".join(line["line"] for line in api.ok("GET", build["links"]["logs"])["items"])
    assert build["status"] == "succeeded", log
    assert [step["status"] for step in build["steps"]] == ["succeeded"] * len(build["steps"])
    assert log
    api.healthy(example, 1, "1")
    platform.answers(app)

    def figures() -> Any:
        metrics = follower.ok("GET", f"/app/{example}/metrics")
        wanted = ("cpu_percent", "memory_bytes", "memory_limit_bytes")
        return metrics if all(metrics[name] is not None for name in wanted) else None

    metrics = wait_for(figures, "measured figures", 30)
    assert metrics["instances"] == {"desired": 1, "running": 1, "healthy": 1}
    assert metrics["memory_bytes"] > 100_000
    wait_for(lambda: api.ok("GET", f"/app/{example}/logs")["items"], "log lines", 30)
    instance = api.ok("GET", f"/app/{example}/instances")["items"][0]
    details = api.ok("GET", f"/app/{example}/instances/{instance['id']}/details")
    assert details["placement"]
    assert api.ok("GET", f"/app/{example}/instances/{instance['id']}/metrics")["cpu_percent"] is not None
    assert api.ok("GET", f"/app/{example}/instances/{instance['id']}/logs")["items"]


def test_the_life_of_an_app(platform: Platform) -> None:
    api, follower = platform.api(platform.leader()), platform.api(platform.followers()[0])
    name = "life"
    app = api.create(name, health_check={"type": "http", "path": "/healthz"})
    assert app["status"] == "created"
    hello = EXAMPLES / "hello"
    assert api.built(name, "1", archive(hello))["status"] == "succeeded"
    api.healthy(name, 1, "1")
    platform.answers(app)

    with RequestLoop(platform, app) as loop:
        scaled = follower.ok("POST", f"/app/{name}/scale", {"instances": 5})
        assert follower.ended(scaled)["status"] == "succeeded"
        api.healthy(name, 5)
        nodes = {instance["node"] for instance in api.ok("GET", f"/app/{name}/instances?status=running")["items"]}
        assert len(nodes) == len(platform.members)
        assert api.ended(api.ok("POST", f"/app/{name}/scale", {"instances": 2}))["status"] == "succeeded"
        api.healthy(name, 2)

        patched = follower.ok(
            "PATCH", f"/app/{name}", {"env": {"GREETING": "hi", "KEY": {"value": "s3cret", "secret": True}}}
        )
        assert patched["env"] == {"GREETING": "hi", "KEY": {"secret": True}}
        assert api.ended(patched["deployment"])["status"] == "succeeded"
        assert "s3cret" not in api("GET", f"/app/{name}/info").text

        assert api.built(name, "2", archive(hello, extra__txt="second"))["status"] == "succeeded"
        api.healthy(name, 2, "2")

        crash = api.built(name, "3", archive(EXAMPLES / "crash"))
        assert crash["status"] == "succeeded"
        deployment = wait_for(
            lambda: next((d for d in api.ok("GET", f"/app/{name}/deployments")["items"]
                          if d["status"] in ("failed", "reverted")), None),
            "the failed deployment", 90,
        )  # fmt: skip
        deployment = api.ok("GET", deployment["links"]["self"])
        assert deployment["error"]["code"]
        assert deployment["evidence"]
        api.healthy(name, 2, "2")

        bad_build = api.built(
            name, "4", archive(EXAMPLES / "python-flask", requirements__txt="no-such-package-omni==1\n")
        )
        assert bad_build["status"] == "failed"
        assert bad_build["error"]["detail"]
        assert api.ok("GET", bad_build["links"]["logs"])["items"]
        api.healthy(name, 2, "2")

        back = follower.ok("POST", f"/app/{name}/rollback", {"version": "1"})
        assert api.ended(back)["status"] == "succeeded"
        api.healthy(name, 2, "1")
    assert loop.failures == []
    assert len(loop.answers) > 100

    instances = [instance["id"] for instance in api.ok("GET", f"/app/{name}/instances?limit=500")["items"]]
    assert api("DELETE", f"/app/{name}").status_code == 202
    wait_for(lambda: api("GET", f"/app/{app['id']}/info").status_code == 404, "the end of the deletion", 60)
    assert api("GET", f"/app/{app['id']}/logs").status_code == 404
    wait_for(
        lambda: not any((platform.state / "instances" / str(pk)).exists() for pk in instances), "empty directories", 30
    )
    wait_for(lambda: platform.open(app).status_code == 404, "the host name's end", 15)


def test_stop_and_start(platform: Platform) -> None:
    api = platform.api(1)
    app = api.create("pausing")
    assert api.built("pausing", "1", archive(EXAMPLES / "hello"))["status"] == "succeeded"
    api.healthy("pausing", 1)
    api.ok("POST", "/app/pausing/stop")
    api.healthy("pausing", 0)
    wait_for(lambda: platform.open(app).status_code == 503, "a page that says there is no instance", 15)
    api.ok("POST", "/app/pausing/start")
    api.healthy("pausing", 1)
    platform.answers(app)
    before = api.ok("GET", "/app/pausing/instances?status=running")["items"][0]["id"]
    assert api.ended(api.ok("POST", "/app/pausing/restart"))["status"] == "succeeded"
    after = api.ok("GET", "/app/pausing/instances?status=running")["items"][0]["id"]
    assert after != before

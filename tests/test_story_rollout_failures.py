"""Each way in which a release can fail ends in the release before, by itself, with the evidence; no caller notices.

All ways at once, on one platform, so that it takes as long as the slowest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.request_loop import RequestLoop
from tests.running_platform import EXAMPLES, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

APP = EXAMPLES / "misbehaving"
# A start period that a slow machine can keep: each of these is to fail by what it does, not by starting slowly.
CHECK = {"type": "http", "path": "/healthz", "start_period_s": 12, "interval_s": 0.5, "unhealthy_threshold": 1}
STRATEGY = {"progress_deadline_s": 90, "watch_s": 120}
Evidence = dict[str, Any]


def _exits(evidence: Evidence) -> bool:
    return evidence["last_exit"]["code"] == 3 and "nothing works without SECRET_KEY" in evidence["log"]


def _never_healthy(evidence: Evidence) -> bool:
    probe = evidence["last_probe"]
    return probe["status"] == 503 and "the database is missing" in probe["snippet"] and bool(evidence["log"])


def _wrong_port(evidence: Evidence) -> bool:
    return "refused" in evidence["last_probe"]["detail"] and "it listens on port" in evidence["last_probe"]["detail"]


def _crashes_later(evidence: Evidence) -> bool:
    return evidence["last_exit"]["code"] == 7 and evidence["crashes"] == 2 and "the cache is full" in evidence["log"]


def _out_of_memory(evidence: Evidence) -> bool:
    return evidence["last_exit"]["oom"] is True and "want of memory" in evidence["detail"]


def _ignores_term(evidence: Evidence) -> bool:
    return evidence["last_probe"]["status"] == 503


KINDS: dict[str, tuple[str, Callable[[Evidence], bool], str]] = {
    "exits": ("exits", _exits, "instance_failed"),
    "never-healthy": ("never-healthy", _never_healthy, "instance_unhealthy"),
    "wrong-port": ("wrong-port", _wrong_port, "instance_unhealthy"),
    "crashes-later": ("crashes-later 3", _crashes_later, "instance_crashed"),
    "out-of-memory": ("out-of-memory", _out_of_memory, "instance_failed"),
    "ignores-term": ("ignores-term", _ignores_term, "instance_unhealthy"),
}


@pytest.fixture(scope="module")
def reverted(platform: Platform) -> dict[str, dict[str, Any]]:
    """One app for each kind: well with version 1, then version 2; the deployment of version 2 at its end."""
    api = platform.api()
    apps = {
        kind: api.create(f"bad-{kind}", health_check=CHECK, strategy=STRATEGY, stop_timeout_s=2, memory_mb=64)
        for kind in KINDS
    }
    for kind in KINDS:
        assert api.upload(f"bad-{kind}", "1", archive(APP)).status_code == 202
    for kind in KINDS:
        api.healthy(f"bad-{kind}", 1, "1")
    for app in apps.values():
        platform.answers(app)
    with contextlib.ExitStack() as stack:
        loops = {kind: stack.enter_context(RequestLoop(platform, apps[kind], pause_s=0.1)) for kind in KINDS}
        for kind, (mode, _, _) in KINDS.items():
            assert api.upload(f"bad-{kind}", "2", archive(APP, mode__txt=mode)).status_code == 202
        found = {kind: _reverted(api, f"bad-{kind}") for kind in KINDS}
    for kind, loop in loops.items():
        # what served for a while and then crashed takes its open requests with it
        found[kind]["failures"] = [] if kind == "crashes-later" else loop.failures
    return found


def _reverted(api: Any, name: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        newest = api.ok("GET", f"/app/{name}/deployments?limit=1")["items"][0]
        return api.ok("GET", newest["links"]["self"]) if newest["status"] == "reverted" else None

    return dict(wait_for(look, f"the revert of {name}", 90, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_that_fails_is_reverted_with_its_evidence(
    platform: Platform, reverted: dict[str, dict[str, Any]], kind: str
) -> None:
    deployment, (_, shows, code) = reverted[kind], KINDS[kind]
    facts = platform.api().ok("GET", "/nodes")["items"][0]
    if kind == "out-of-memory" and facts["limits"] == "none":
        pytest.skip("this host cannot limit memory")
    assert deployment["error"]["code"] == code, deployment["error"]
    assert shows(deployment["evidence"]), deployment["evidence"]
    assert deployment["failures"] == []
    info = platform.api().healthy(f"bad-{kind}", 1, "1")
    assert info["version"]["current"] == "1"
    assert platform.open(info).text == "1"


def test_what_ignores_sigterm_is_ended_all_the_same(platform: Platform, reverted: dict[str, dict[str, Any]]) -> None:
    bad = reverted["ignores-term"]["evidence"]["instance_id"]
    path = f"/app/bad-ignores-term/instances/{bad}/details"

    def gone() -> dict[str, Any] | None:
        found = platform.api().ok("GET", path)
        return found if found["status"] == "stopped" else None

    assert wait_for(gone, "its end", 20)["last_exit"]["signal"] == 9

"""Each strategy by the API, watched in a request loop through the real ingress: who answers, and what is dropped."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.running_platform import EXAMPLES, Api, Platform, archive, wait_for

pytestmark = [pytest.mark.story, pytest.mark.slow]

APP = EXAMPLES / "misbehaving"
STRATEGIES: dict[str, dict[str, Any]] = {
    "st-canary": {"type": "canary", "canary_percent": 30, "promote": "manual"},
    "st-errors": {"type": "canary", "canary_percent": 30, "bake_s": 300},
    "st-blue": {"type": "blue_green", "keep_warm_s": 20},
    "st-recreate": {"type": "recreate"},
    "st-rolling": {"type": "rolling", "max_surge": "50%"},
}


class Callers:
    """Keeps asking one app, one request after the other; `seen` holds (when, version or status)."""

    def __init__(self, platform: Platform, app: dict[str, Any]) -> None:
        self.seen: list[tuple[float, str]] = []
        self._url = f"http://127.0.0.1:{platform.config['ingress']['port']}/"
        self._host = httpx.URL(app["urls"][0]).host
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with httpx.Client(headers={"Host": self._host}, timeout=10) as client:
            while not self._stop.wait(0.01):
                try:
                    answer = client.get(self._url)
                    found = answer.text if answer.status_code == 200 else str(answer.status_code)
                except httpx.HTTPError as error:
                    found = repr(error)
                self.seen.append((time.monotonic(), found))

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def since(self, moment: float) -> Counter[str]:
        return Counter(what for at, what in self.seen if at >= moment)

    def failures(self) -> Counter[str]:
        return Counter(what for _, what in self.seen if what not in ("1", "2"))


@pytest.fixture(scope="module")
def apps(platform: Platform) -> Iterator[dict[str, dict[str, Any]]]:
    """One app for each strategy with version 1 running and version 2 built."""
    api = platform.api()
    check = {"type": "http", "path": "/healthz"}
    found = {
        name: api.create(name, instances=2, memory_mb=64, strategy=strategy, health_check=check)
        for name, strategy in STRATEGIES.items()
    }
    for version in ("1", "2"):
        for name in found:
            bad = {"mode__txt": "fails-requests"} if (name, version) == ("st-errors", "2") else {"v__txt": version}
            sent = api.upload(name, version, archive(APP, **bad), f"?deploy={'true' if version == '1' else 'false'}")
            assert sent.status_code == 202, sent.text
    for name in found:
        api.healthy(name, 2, "1")
        wait_for(lambda name=name: api("GET", f"/app/{name}/release/2").status_code == 200, f"{name} 2", 60)
        platform.answers(found[name])
    yield found
    for name in found:
        api.ok("DELETE", f"/app/{name}")


def deploy(api: Api, name: str) -> dict[str, Any]:
    return dict(api.ok("POST", f"/app/{name}/release/2/deploy"))


def in_phase(api: Api, deployment: dict[str, Any], phase: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = api.ok("GET", deployment["links"]["self"])
        return found if found["phase"] == phase else None

    return dict(wait_for(look, f"the phase {phase}", 60))


def test_a_canary_gets_its_share_and_everything_once_it_is_promoted(platform: Platform, apps: dict[str, Any]) -> None:
    api = platform.api(1)
    with Callers(platform, apps["st-canary"]) as callers:
        made = deploy(api, "st-canary")
        in_phase(api, made, "awaiting_promotion")
        time.sleep(2)  # until the ingress knows
        begun = time.monotonic()
        wait_for(lambda: sum(callers.since(begun).values()) >= 400, "400 requests", 60)
        split = callers.since(begun)
        assert 0.2 <= split["2"] / sum(split.values()) <= 0.4, split
        assert api.ok("POST", made["links"]["promote"])["phase"] == "rolling"
        assert api.ended(made)["status"] == "succeeded"
        begun = time.monotonic() + 4
        wait_for(lambda: sum(callers.since(begun).values()) >= 50, "50 requests", 60)
        assert set(callers.since(begun)) == {"2"}
        ledger = wait_for(lambda: _counted(api, made), "the ledger", 60)
    assert callers.failures() == {}
    assert ledger["requests"] > 100
    assert ledger["failed"] == 0


def _counted(api: Api, made: dict[str, Any]) -> dict[str, Any] | None:
    ledger: dict[str, Any] = api.ok("GET", made["links"]["self"])["ledger"]
    return ledger if (ledger["requests"] or 0) > 100 else None


@pytest.mark.long
def test_a_canary_that_fails_its_requests_is_stopped_by_their_counts(platform: Platform, apps: dict[str, Any]) -> None:
    api = platform.api()
    with Callers(platform, apps["st-errors"]) as callers:
        made = deploy(api, "st-errors")
        found = api.ended(made)
        begun = time.monotonic() + 2
        wait_for(lambda: sum(callers.since(begun).values()) >= 50, "50 requests", 60)
        assert set(callers.since(begun)) == {"1"}
    assert (found["status"], found["error"]["code"]) == ("reverted", "canary_errors")
    assert found["comparison"]["new"]["error_rate"] == 1.0
    assert found["comparison"]["old"]["error_rate"] == 0.0
    assert set(callers.failures()) == {"500"}


def test_blue_and_green_change_places_at_once_and_back(platform: Platform, apps: dict[str, Any]) -> None:
    api = platform.api()
    with Callers(platform, apps["st-blue"]) as callers:
        made = deploy(api, "st-blue")
        assert api.ended(made)["phase"] == "warm"
        _changes(callers, "2")
        asked = time.monotonic()
        back = api.ok("POST", "/app/st-blue/rollback")
        took = _changes(callers, "1") - asked
        assert api.ended(back)["status"] == "succeeded"
    assert callers.failures() == {}
    mixed = [what for _, what in callers.seen]
    flips = sum(1 for one, other in itertools.pairwise(mixed) if one != other)
    assert flips == 2, f"{flips} changes of the version that answers"
    print(f"the way back took {took:.1f} s")


def _changes(callers: Callers, version: str) -> float:
    """When this version began to answer."""

    def first() -> float | None:
        return next((at for at, what in callers.seen[-1:] if what == version), None)

    return float(wait_for(first, f"answers of version {version}", 30, 0.02) or 0.0)


def test_a_rolling_update_is_paused_goes_on_and_is_cancelled(platform: Platform, apps: dict[str, Any]) -> None:
    api = platform.api()
    with Callers(platform, apps["st-rolling"]) as callers:
        made = deploy(api, "st-rolling")
        paused = api.ok("POST", made["links"]["pause"])
        assert paused["paused_at"]
        in_phase(api, made, "paused")
        time.sleep(2)
        assert api.ok("GET", made["links"]["self"])["status"] == "rolling"
        api.ok("POST", made["links"]["resume"])
        assert api.ended(made)["status"] == "succeeded"
        again = api.ok("POST", "/app/st-rolling/rollback")
        api.ok("POST", again["links"]["cancel"])
        found = wait_for(lambda: _reverted(api, again), "the way back", 60)
        assert found is not None
        assert found["version"] == "1"
        api.healthy("st-rolling", 2, "2")
    assert callers.failures() == {}


def _reverted(api: Api, made: dict[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] = api.ok("GET", made["links"]["self"])
    return found if found["status"] == "reverted" else None


def test_recreate_never_runs_both(platform: Platform, apps: dict[str, Any]) -> None:
    api = platform.api()
    with Callers(platform, apps["st-recreate"]) as callers:
        made = deploy(api, "st-recreate")
        seen = set()
        while api.ok("GET", made["links"]["self"])["status"] in ("pending", "rolling"):
            items = api.ok("GET", "/app/st-recreate/instances")["items"]
            seen.add(frozenset(i["version"] for i in items if i["status"] not in ("stopped", "failed")))
        api.healthy("st-recreate", 2, "2")
    assert frozenset({"1", "2"}) not in seen
    assert {what for _, what in callers.seen} <= {"1", "2", "503", "502"}

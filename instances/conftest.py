"""What the tests of this app share: a cluster of rows with agents that are played by hand."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from apps.models import App
from instances import heartbeats, routes
from instances.controller import Controller
from instances.models import Deployment, Instance, Node
from instances.telemetry import figures
from instances.telemetry.models import RequestSample
from omni.kernel import clock, internal_tokens, keys
from omni.testing.factories import make_app, make_node, make_org, make_release, make_token

CANARY = {"type": "canary", "canary_percent": 25, "bake_s": 60}
BLUE_GREEN = {"type": "blue_green", "keep_warm_s": 60}
FACTS = {
    "agent_version": "1", "hostname": "h", "address": "127.0.0.1", "cpu_count": 2, "memory_mb": 2048,
    "port_range": [20000, 20499], "runtimes": ["process"], "isolation": "none", "limits": "none", "network": "shared",
}  # fmt: skip


@dataclass
class Platform:
    """An org with its token, ready nodes, and the leader's controller; `settle` plays all agents."""

    token: str
    org: Any
    node_names: list[str]
    ages: dict[str, float] = field(default_factory=dict)
    seqs: dict[int, int] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # versions that never get healthy
    offset_s: float = 0.0

    def __post_init__(self) -> None:
        self.ages = dict.fromkeys(self.node_names, 0.0)
        self.controller = Controller(ages=lambda: self.ages)

    def call(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        return call(self.token, method, path, data, **headers)

    def app(self, **fields: Any) -> App:
        strategy = {"min_ready_s": 0, **fields.pop("strategy", {})}  # no test waits
        app = make_app(self.org, memory_mb=64, strategy=strategy, **fields)
        make_release(app, "v1")
        return app

    def later(self, seconds: float) -> None:
        """Time passes, for everybody."""
        self.offset_s += seconds

    def tick(self, times: int = 3) -> str:
        told = ""
        for _ in range(times):
            told = self.controller.tick()
        return told

    def report(self, row: Instance, status: str, health: str = "unknown", **fields: Any) -> Any:
        """What the instance's agent would say."""
        self.seqs[row.pk] = self.seqs.get(row.pk, 0) + 1
        observed = {"id": row.pk, "seq": self.seqs[row.pk], "status": status, "health": health, **fields}
        assert row.node is not None
        return call(node_token(row.node.name), "POST", "/agent/report",
                    {"node": row.node.name, "incarnation": 1, "instances": [observed]})  # fmt: skip

    def agents_act(self) -> bool:
        acted = False
        for row in Instance.objects.filter(on_node=True).select_related("node", "release").order_by("id"):
            acted |= self._act(row)
        return acted

    def _act(self, row: Instance) -> bool:
        address = f"127.0.0.1:{20000 + row.pk}"
        if row.status in ("stopped", "failed", "lost"):
            assert row.node is not None
            call(node_token(row.node.name), "POST", "/agent/report",
                 {"node": row.node.name, "incarnation": 1, "gone": [row.pk]})  # fmt: skip
        elif row.desired == "stop":
            self.report(row, "stopped")
        elif row.status == "placed":
            self.report(row, "starting", "starting")
        elif row.status == "starting" and row.release.version in self.broken:
            exit_ = {"at": "2026-01-01T00:00:00Z", "code": 1, "lines": ["boom"]}
            self.report(row, "failed", detail="exited with code 1", last_exit=exit_)
        elif row.status == "starting":
            self.report(row, "running", "healthy", address=address, started_at="2026-01-01T00:00:00Z")
        else:
            return False
        return True

    def settle(self) -> None:
        for _ in range(60):
            told = self.tick()
            if not self.agents_act() and told == "nothing to do":
                return
        raise AssertionError("does not settle")

    def crash(self, row: Instance, code: int = 3) -> None:
        """Its process ends by itself and is started again in place."""
        row.refresh_from_db()
        crashes = row.restarts + 1
        at = f"2026-01-01T00:{crashes // 60:02}:{crashes % 60:02}Z"
        exit_ = {"at": at, "code": code, "lines": ["the last thing it said"]}
        self.report(row, "crashed", restarts=row.restarts, last_exit=exit_, detail=f"exited with code {code}",
                    crashes=crashes)  # fmt: skip
        self.report(row, "running", "healthy", restarts=crashes, last_exit=exit_, crashes=crashes,
                    address=f"127.0.0.1:{20000 + row.pk}", started_at="2026-01-01T00:00:00Z")  # fmt: skip

    def restart_leader(self) -> None:
        """The leader dies; another one begins, with nothing but the database."""
        self.controller = Controller(ages=lambda: self.ages)

    def deploy(self, app: App, version: str, **fields: Any) -> Any:
        """A new release, and the answer to its deployment."""
        make_release(app, version, **fields)
        answer = self.call("POST", f"/app/{app.pk}/release/{version}/deploy")
        assert answer.status_code == 202, answer.content
        return answer.json()

    def route(self, app: App) -> dict[str, Any]:
        """What the ingresses are told about the app: `{"canary_percent", "stable": [ids], "canary": [ids]}`."""
        listed = call(node_token(self.node_names[0]), "GET", "/agent/routes").json()["hosts"]
        (found,) = [host for host in listed if host["app_id"] == app.pk]
        pools: dict[str, Any] = {"canary_percent": found.get("canary_percent", 0), "stable": [], "canary": []}
        for target in found["targets"]:
            pools[target.get("pool", "stable")].append(target["instance_id"])
        return pools

    def serving(self, app: App) -> list[str]:
        rows = Instance.objects.filter(app=app, status="running", health="healthy", desired="run")
        return sorted(rows.values_list("release__version", flat=True))

    def deployment(self, app: App) -> Deployment:
        return Deployment.objects.filter(app=app).order_by("-id")[0]


def node_token(name: str) -> str:
    return internal_tokens.mint("node", name, keys.cluster_secret(settings.CONFIG))


def call(token: str, method: str, path: str, data: Any = None, **headers: str) -> Any:
    body = "" if data is None else json.dumps(data)
    given = {"Authorization": f"Bearer {token}", **headers}
    return Client().generic(method, path, body, content_type="application/json", headers=given)


def of(app: Any, version: str) -> list[int]:
    rows = Instance.objects.filter(app=app, desired="run", release__version=version).order_by("id")
    return list(rows.values_list("id", flat=True))


def answered(app: Any, instance_ids: list[int], requests: int, failed: int = 0) -> None:
    """What an ingress counted a moment ago."""
    histogram = [0] * 22
    histogram[5] = requests
    for instance_id in instance_ids:
        RequestSample.objects.create(
            app_id=app.pk, instance_id=instance_id, at_us=clock.to_us(clock.now()), window_s=10, requests=requests,
            failed=failed, histogram=histogram, retried=1,
        )  # fmt: skip


def detail(platform: Platform, made: dict[str, Any]) -> dict[str, Any]:
    return dict(platform.call("GET", made["links"]["self"]).json())


@pytest.fixture(autouse=True)
def fresh_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from instances import api_agent, assignments

    monkeypatch.setattr(keys, "cluster_secret", lambda _config: "a secret for tests")
    own = heartbeats.Heartbeats(tmp_path / "heartbeats")
    monkeypatch.setattr(heartbeats, "own", lambda: own)
    for forget in (figures.forget, routes.forget, api_agent._known.clear, assignments._environment.cache_clear):
        forget()


@pytest.fixture
def platform(fence: None, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """Three ready nodes of this cluster, and a clock that can be put forward."""
    org = make_org()
    names = [member.id for member in settings.CONFIG.members][:3]
    for name in names:
        make_node(name, memory_mb=2048, facts=FACTS, incarnation=1)
    assert Node.objects.count() == len(names)
    made = Platform(make_token(org, platform=True), org, names)
    now, monotonic = clock.now, clock.monotonic
    monkeypatch.setattr(clock, "now", lambda: now() + dt.timedelta(seconds=made.offset_s))
    monkeypatch.setattr(clock, "monotonic", lambda: monotonic() + made.offset_s)
    return made

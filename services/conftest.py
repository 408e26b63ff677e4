"""What the tests of this app share: nodes with tokens, and vantage points that are played by hand."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from omni.kernel import clock, internal_tokens, keys
from omni.testing.factories import make_node, make_org, make_token
from services import board, standings
from services.looking import PartSeen
from services.models import Service
from services.watch import Watch


def call(token: str, method: str, path: str, data: Any = None, **headers: str) -> Any:
    body = "" if data is None else json.dumps(data)
    given = {"Authorization": f"Bearer {token}", **headers}
    return Client().generic(method, path, body, content_type="application/json", headers=given)


@dataclass
class Cluster:
    """Ready nodes, a platform token; `say` plays the engines of all nodes."""

    token: str
    org: Any
    nodes: list[str]
    seqs: dict[str, int] = field(default_factory=dict)

    def call(self, method: str, path: str, data: Any = None, **headers: str) -> Any:
        return call(self.token, method, path, data, **headers)

    def node_token(self, node: str) -> str:
        return internal_tokens.mint("node", node, keys.cluster_secret(settings.CONFIG))

    def say(
        self, *said: tuple[int, str], nodes: list[str] | None = None, detail: str = "", definition: int = 1
    ) -> None:
        """Each node reports (service, verdict)."""
        for node in nodes if nodes is not None else self.nodes:
            seen = [{"id": id, "definition": definition, "verdict": verdict, "at_us": 1, "detail": detail}
                    for id, verdict in said]  # fmt: skip
            answer = self.verdicts(node, seen)
            if answer.json()["want_full"]:
                assert self.verdicts(node, seen, full=True).json() == {"want_full": False}

    def verdicts(self, node: str, seen: list[dict[str, Any]], *, full: bool = False) -> Any:
        self.seqs[node] = self.seqs.get(node, 0) + 1
        body = {"node": node, "incarnation": 1, "seq": self.seqs[node], "full": full, "seen": seen}
        answer = call(self.node_token(node), "POST", "/agent/verdicts", body)
        assert answer.status_code == 200, answer.content
        return answer


@pytest.fixture
def cluster(fence: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(keys, "cluster_secret", lambda _config: "a secret for tests")
    monkeypatch.setattr(board, "directory", lambda: tmp_path / "checks")
    org = make_org()
    names = [f"10.0.0.{number}-8000" for number in (1, 2, 3)]
    for name in names:
        make_node(name)
    return Cluster(make_token(org, platform=True), org, names)


class Leader:
    """A watch, and a clock that can be put forward."""

    def __init__(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster, self.offset_s = cluster, 0.0
        self.parts: dict[str, PartSeen] = {}
        now = clock.now
        monkeypatch.setattr(clock, "now", lambda: now() + dt.timedelta(seconds=self.offset_s))
        self.begin()

    def begin(self) -> None:
        """A new leadership, which knows nothing but the database."""
        standings.forget()
        self.watch = Watch(board.Board(board.directory()), lambda: self.parts)

    def tick(self, later_s: float = 1.0) -> None:
        self.offset_s += later_s
        self.watch.tick()

    def say(self, *said: tuple[Service, str], nodes: list[str] | None = None, detail: str = "") -> None:
        self.cluster.say(*[(service.pk, verdict) for service, verdict in said], nodes=nodes, detail=detail)
        self.tick()
        self.cluster.say(nodes=nodes)  # nodes whose board the leader could not read are asked again
        self.tick()


@pytest.fixture
def leader(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Leader:
    monkeypatch.setattr(standings, "_file", lambda: tmp_path / "services.json")
    return Leader(cluster, monkeypatch)

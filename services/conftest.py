"""What the tests of this app share: nodes with tokens, and vantage points that are played by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from omni.kernel import internal_tokens, keys
from omni.testing.factories import make_node, make_org, make_token
from services import board


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

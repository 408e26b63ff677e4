"""`/health*` and `/cluster/*`, with the database and without it, on a member whose Raft process a test plays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from django.test import Client

from accounts import authentication
from consensus.fake import FakeLease
from consensus.lease import ConsensusUnavailable
from consensus.raft.client import CommandRefused, CommandUnknown
from omni.api import cluster, degraded, parts
from omni.kernel.models import Event
from omni.kernel.probes import Probe
from omni.testing.factories import make_org, make_token

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]
ME, OTHER = "127.0.0.1-8000", "127.0.0.1-8001"


class Raft:
    """A Raft process as its client shows it."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.members = {ME: True, OTHER: True, "127.0.0.1-8002": False}

    def __call__(self, _path: str) -> Raft:
        return self

    def status(self, timeout_s: float = 2.0) -> dict[str, Any]:
        self._fail()
        members = [
            {
                "id": id,
                "address": id.replace("-", ":"),
                "http": id.replace("-", ":"),
                "role": "follower",
                "reachable": up,
                "match_lag": 0 if up else None,
                "version": "0.1.0",
                "last_seen_at": "2026-11-22T10:00:00Z",
                "able": up,
            }
            for id, up in self.members.items()
        ]
        state = {
            "leader": {"member": ME, "epoch": 12, "claim_id": "c", "since": ""},
            "drains": {},
            "services": {f"agent {ME}": {"state": "up", "since": "", "detail": ""}},
        }
        quorum = {"size": 3, "reachable": 2, "has": True}
        return {"role": "leader", "term": 7, "quorum": quorum, "members": members, "state": state}

    def transfer(self, to: str | None, timeout_s: float) -> str:
        return str(self._did("transfer", to) or "127.0.0.1:8001")

    def add_member(self, id: str, address: str, timeout_s: float) -> dict[str, Any]:
        return self._did("add", id, address) or {}

    def remove_member(self, id: str, timeout_s: float) -> dict[str, Any]:
        self.members.pop(id)
        return self._did("remove", id) or {}

    def close(self) -> None:
        pass

    def _did(self, *call: Any) -> Any:
        self._fail()
        self.calls.append(call)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def raft(monkeypatch: pytest.MonkeyPatch) -> Raft:
    made = Raft()
    monkeypatch.setattr(cluster, "RaftClient", made)
    monkeypatch.setattr(parts, "RaftClient", made)
    return made


@pytest.fixture
def token() -> str:
    return make_token(make_org("home"), platform=True)


def ask(method: str, path: str, token: str = "", data: Any = None, **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        given["Authorization"] = f"Bearer {token}"
    body = "" if data is None else json.dumps(data)
    return Client().generic(method, path, body, content_type="application/json", headers=given)


def _gone() -> Any:
    raise OperationalError(2002, "the server has gone away")


def database_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the member sees it; the look-up of a token fails too."""
    monkeypatch.setattr(parts, "database", Probe(_gone, lambda why: parts.Database(False, why)))
    monkeypatch.setattr(authentication, "_look_up", lambda _key: _gone())


def test_the_status_joins_the_fence_and_raft(raft: Raft, token: str) -> None:
    body = ask("GET", "/cluster/status", token).json()
    assert (body["role"], body["leader"], body["term"], body["epoch"]) == ("leader", "127.0.0.1:8000", 7, 1)
    assert body["write_index"] == 0
    assert body["quorum"] == {"mode": "raft", "size": 3, "reachable": 2, "has": True}
    assert [member["role"] for member in body["members"]] == ["leader", "follower", "unknown"]
    assert body["members"][0]["address"] == "127.0.0.1:8000"
    assert ask("GET", "/cluster/members", token).json()["items"] == body["members"]


def test_without_its_raft_process_the_status_says_what_is_configured(token: str) -> None:
    body = ask("GET", "/cluster/status", token).json()
    assert [member["id"] for member in body["members"]] == [member.id for member in settings.CONFIG.members]
    assert body["quorum"]["has"] is False


def test_with_the_database_down_the_status_answers_from_the_replicated_state(
    raft: Raft, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("GET", "/cluster/status", token).status_code == 200  # the token is known to this process from now on
    database_down(monkeypatch)
    answer = ask("GET", "/cluster/status", token)
    body = answer.json()
    assert (body["leader"], body["epoch"], body["database"]["status"]) == ("127.0.0.1:8000", 12, "down")
    assert answer.headers["Omni-Stale"].isdigit()


def test_with_the_database_down_the_first_admins_token_is_known_by_its_file(
    raft: Raft, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = "omni_abcdefgh_" + "a" * 43
    file = Path(settings.CONFIG.state / "admin.token")
    file.write_text(admin + "\n")
    try:
        database_down(monkeypatch)
        assert ask("GET", "/cluster/status", admin).status_code == 200
        stranger = ask("GET", "/cluster/status", "omni_abcdefgh_" + "b" * 43)
        assert (stranger.status_code, stranger.json()["code"]) == (503, "database_unavailable")
        assert ask("GET", "/cluster/status").status_code == 401
        assert ask("POST", "/cluster/transfer", admin).status_code == 503, "only reads go without the database"
    finally:
        file.unlink()


def test_a_remembered_token_is_forgotten_after_ten_minutes(
    raft: Raft, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("GET", "/cluster/status", token)
    database_down(monkeypatch)
    monkeypatch.setattr(degraded, "REMEMBERED_S", 0.0)
    monkeypatch.setattr(authentication, "CACHE_S", 0.0)
    assert ask("GET", "/cluster/status", token).status_code == 503


def test_a_token_without_the_scope_sees_nothing_of_the_cluster(raft: Raft, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_token(make_org("home"))
    for method, path in (("GET", "status"), ("GET", "members"), ("POST", "transfer"), ("POST", "members"),
                         ("DELETE", f"members/{OTHER}")):  # fmt: skip
        assert ask(method, f"/cluster/{path}", plain).status_code == 403, path
    assert raft.calls == []


def test_health_tells_each_part_without_a_token_and_without_the_database(
    raft: Raft, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = ask("GET", "/health").json()
    assert set(body["parts"]) == {"raft", "database", "broker", "agent", "ingress"}
    assert body["parts"]["raft"]["leader"] == "127.0.0.1:8000"
    assert body["parts"]["database"]["status"] == "up"
    database_down(monkeypatch)
    answer = ask("GET", "/health")
    assert answer.status_code == 503
    assert answer.json()["parts"]["database"]["status"] == "down"
    assert answer.json()["parts"]["raft"]["status"] == "up"
    assert answer.json()["parts"]["agent"] == {"status": "unknown", "last_known": "up"}
    assert "Omni-Stale" in answer.headers


def test_ready_means_that_a_write_would_be_accepted(
    raft: Raft, lease: FakeLease, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("GET", "/health/ready").status_code == 200
    lease.lose(None)
    assert ask("GET", "/health/ready").json()["why"] == "no leader is known"
    lease.lose("127.0.0.1:1")
    assert ask("GET", "/health/ready").json()["why"] == "the leader 127.0.0.1:1 cannot be reached"
    lease.hold(1)
    database_down(monkeypatch)
    assert ask("GET", "/health/ready").status_code == 503


@pytest.mark.slow
def test_a_database_of_another_cluster_is_no_database_of_ours(raft: Raft, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = parts.read_database("ours")
    monkeypatch.setattr(parts, "database", Probe(lambda: seen, lambda why: parts.Database(False, why)))
    body = ask("GET", "/health").json()
    assert body["status"] == "down"
    assert "cluster_adopt --from test" in body["parts"]["database"]["detail"]


def test_a_transfer_is_an_event_and_answers_the_new_leader(raft: Raft, token: str) -> None:
    answer = ask("POST", "/cluster/transfer", token)
    assert answer.status_code == 200, answer.content
    assert answer.json() == {"leader": "127.0.0.1:8001", "former": "127.0.0.1:8000", "to": None}
    event = Event.objects.get(kind="cluster.transfer_requested")
    assert int(answer.headers["Omni-Index"]) == event.write_index
    ask("POST", "/cluster/transfer", token, {"to": OTHER})
    assert raft.calls == [("transfer", None), ("transfer", OTHER)]
    assert ask("POST", "/cluster/transfer", token, {"to": ME}).json()["leader"] == "127.0.0.1:8000"
    refused = ask("POST", "/cluster/transfer", token, {"to": "nobody"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/to")
    assert len(raft.calls) == 2


def test_a_repeated_transfer_does_not_move_the_leadership_on(raft: Raft, token: str) -> None:
    first = ask("POST", "/cluster/transfer", token, Idempotency_Key="one")
    assert first.json()["leader"] == "127.0.0.1:8001"
    with pytest.MonkeyPatch.context() as patch:  # the repetition reaches the member that leads by now
        patch.setattr(settings.CONFIG, "__dict__", {**settings.CONFIG.__dict__, "me": settings.CONFIG.members[1]})
        again = ask("POST", "/cluster/transfer", token, Idempotency_Key="one")
    assert again.json() == first.json()
    assert raft.calls == [("transfer", None)]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (CommandRefused("not_caught_up", "it lags behind"), 409, "raft_refused"),
        (CommandUnknown("it may have"), 504, "outcome_unknown"),
        (ConsensusUnavailable("no quorum"), 503, "no_leader"),
    ],
)
def test_what_raft_says_no_to_is_a_problem(raft: Raft, token: str, error: Exception, status: int, code: str) -> None:
    raft.error = error
    answer = ask("POST", "/cluster/transfer", token)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_members_come_and_go(raft: Raft, token: str) -> None:
    added = ask("POST", "/cluster/members", token, {"address": "10.0.0.9", "port": 8000})
    assert added.json() == {"id": "10.0.0.9-8000", "address": "10.0.0.9:8000"}
    removed = ask("DELETE", f"/cluster/members/{OTHER}", token, Idempotency_Key="x")
    assert removed.status_code == 204
    again = ask("DELETE", f"/cluster/members/{OTHER}", token)
    assert again.status_code == 404
    assert raft.calls == [("add", "10.0.0.9-8000", "10.0.0.9:18000"), ("remove", OTHER)]
    kinds = list(Event.objects.order_by("key").values_list("kind", flat=True))
    assert kinds == ["cluster.member_add_requested", "cluster.member_remove_requested"]


def test_a_leader_that_is_to_be_removed_hands_over_and_leaves_the_rest_to_the_next_one(raft: Raft, token: str) -> None:
    answer = ask("DELETE", f"/cluster/members/{ME}", token)
    assert (answer.status_code, answer.headers["Omni-Outcome"]) == (503, "not-applied"), "the front sends it on"
    assert raft.calls == [("transfer", None)]
    assert not Event.objects.exists()


def test_a_dry_run_moves_nothing(raft: Raft, token: str) -> None:
    for method, path, data in (("POST", "transfer", None), ("DELETE", f"members/{OTHER}", None),
                               ("POST", "members", {"address": "10.0.0.9", "port": 8000})):  # fmt: skip
        answer = ask(method, f"/cluster/{path}?dry_run=true", token, data)
        assert answer.json()["dry_run"] is True, answer.content
    assert raft.calls == []
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    "data",
    [{}, {"address": "10.0.0.9"}, {"address": "", "port": 1}, {"address": "a b", "port": 1}, {"x": 1},
     {"address": "a", "port": 0}, {"address": "a", "port": 60000}],
)  # fmt: skip
def test_a_member_needs_an_address_and_a_port(raft: Raft, token: str, data: dict[str, Any]) -> None:
    assert ask("POST", "/cluster/members", token, data).status_code == 422
    assert raft.calls == []

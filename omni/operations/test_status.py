"""The state of a cluster is told by whoever can still tell it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from omni.operations.status import Status, lines
from omni.testing.places import Place

MEMBER = {"role": "follower", "reachable": True, "match_lag": 3, "version": "1", "last_seen_at": None}
WHOLE = Status(
    "http://127.0.0.1:8000",
    {
        "cluster_id": "c1",
        "leader": "127.0.0.1:8001",
        "epoch": 7,
        "write_index": 9,
        "quorum": {"mode": "raft", "size": 2, "reachable": 2, "has": True},
        "members": [{"id": f"127.0.0.1-800{n}", **MEMBER} for n in range(3)],
    },
    {"database": {"status": "up"}, "broker": {"status": "down", "detail": "refused"}},
)


def test_people_read_what_programs_read() -> None:
    text = "\n".join(lines(WHOLE))
    assert "leader       127.0.0.1:8001" in text
    assert "2 of 3 members reachable, 2 needed" in text
    assert "broker down (refused)" in text
    assert "writes       are taken" in text
    assert "127.0.0.1-8002  follower  yes        3" in text
    assert WHOLE.to_json()["takes_writes"] is True


@pytest.mark.parametrize(
    ("leader", "database"), [(None, {"status": "up"}), ("127.0.0.1:8000", {"status": "down"}), (None, {})]
)
def test_without_leader_or_database_no_write_is_promised(leader: str | None, database: dict[str, str]) -> None:
    found = Status("x", {**WHOLE.cluster, "leader": leader}, {"database": database})
    assert not found.takes_writes
    assert any("NOT taken" in line for line in lines(found))


@pytest.mark.slow
def test_with_everything_down_the_database_is_still_asked(fresh: Place, place: Callable[..., Place]) -> None:
    code, output = fresh.run("manage.py", "cluster_status", "--json")
    assert code == 1
    found = json.loads(output)
    assert (found["leader"], found["epoch"], found["takes_writes"]) == (None, 1, False)
    assert [member["reachable"] for member in found["members"]] == [False]
    code, output = place("never", nodes=(8100, 8101)).run("manage.py", "cluster_status")
    assert code == 1, output
    assert "0 of 2 members reachable" in output
    assert "database down" in output

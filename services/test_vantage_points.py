"""What vantage points ask and report: definitions by tag, reports in order, history without repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.checks.messages import Checks
from agent.plain import from_json
from omni.testing.factories import make_service
from services import board, vantage
from services.board import Board
from services.conftest import Cluster, call
from services.models import CheckSpan

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


def checks(cluster: Cluster, node: str, tag: str = "") -> Checks:
    answer = call(cluster.node_token(node), "GET", f"/agent/checks?tag={tag}")
    assert answer.status_code == 200, answer.content
    return from_json(Checks, answer.json())


@pytest.mark.slow
def test_each_node_gets_its_checks_and_nothing_while_they_are_the_same(cluster):
    everywhere = make_service("a")
    make_service("b", vantage_points=1)
    make_service("c", check={"type": "heartbeat"})
    make_service("d", check={"type": "exec", "command": ["true"], "node": cluster.nodes[1]})
    lists = [checks(cluster, node) for node in cluster.nodes]
    assert [sum(one.id == everywhere.pk for one in found.checks or []) for found in lists] == [1, 1, 1]
    assert sum(len(found.checks or []) for found in lists) == 3 + 1 + 1
    assert [one.type for one in lists[1].checks or [] if one.type == "exec"] == ["exec"]
    assert checks(cluster, cluster.nodes[0], lists[0].tag).checks is None
    make_service("e")
    assert checks(cluster, cluster.nodes[0], lists[0].tag).checks is not None


def test_only_the_platforms_own_checks_may_look_at_the_host_itself(cluster):
    make_service("a", check={"type": "tcp", "host": "127.0.0.1", "port": 1})
    make_service("platform:b", source="platform", check={"type": "tcp", "host": "127.0.0.1", "port": 1})
    found = checks(cluster, cluster.nodes[0]).checks or []
    assert [one.trusted for one in found] == [False, True]


def test_strangers_are_refused(cluster, lease):
    assert cluster.call("GET", "/agent/checks").status_code == 403
    body = {"node": cluster.nodes[1], "incarnation": 1, "seq": 1}
    foreign = call(cluster.node_token(cluster.nodes[0]), "POST", "/agent/verdicts", body)
    assert (foreign.status_code, foreign.json()["code"]) == (403, "foreign_node")
    lease.lose("10.0.0.2:8000")
    late = call(cluster.node_token(cluster.nodes[1]), "POST", "/agent/verdicts", body)
    assert (late.status_code, late.json()["code"]) == (503, "no_leader")


def seen(id: int, verdict: str, definition: int = 1) -> dict[str, object]:
    return {"id": id, "definition": definition, "verdict": verdict, "at_us": 1, "detail": verdict}


def verdict_of(found: Board, id: int, node: str, definition: int = 1) -> list[str]:
    found.read()
    return [reading.verdict for reading in found.readings(id, definition, [node])]


def test_changes_add_to_what_was_said_and_a_full_report_replaces_it(cluster):
    node, found = cluster.nodes[0], Board(board.directory())
    assert cluster.verdicts(node, [seen(1, "passing")]).json() == {"want_full": True}
    assert verdict_of(found, 1, node) == []
    cluster.verdicts(node, [seen(1, "passing"), seen(2, "failing")], full=True)
    assert (verdict_of(found, 1, node), verdict_of(found, 2, node)) == (["passing"], ["failing"])
    assert cluster.verdicts(node, [seen(2, "passing")]).json() == {"want_full": False}
    assert (verdict_of(found, 1, node), verdict_of(found, 2, node)) == (["passing"], ["passing"])
    cluster.verdicts(node, [seen(2, "unknown")])
    assert verdict_of(found, 2, node) == []
    cluster.verdicts(node, [], full=True)
    assert verdict_of(found, 1, node) == []


def test_a_report_that_is_missing_makes_everything_unknown_until_a_full_one_came(cluster):
    node, found = cluster.nodes[0], Board(board.directory())
    cluster.verdicts(node, [seen(1, "passing")], full=True)
    assert verdict_of(found, 1, node) == ["passing"]
    cluster.seqs[node] += 1  # one was lost
    cluster.verdicts(node, [seen(2, "passing")])
    assert verdict_of(found, 1, node) == []
    assert cluster.verdicts(node, []).json() == {"want_full": True}
    cluster.verdicts(node, [seen(1, "failing")], full=True)
    assert verdict_of(found, 1, node) == ["failing"]


def test_a_verdict_on_an_older_definition_counts_for_nothing(cluster):
    node, found = cluster.nodes[0], Board(board.directory())
    cluster.verdicts(node, [seen(1, "passing", definition=1)], full=True)
    assert verdict_of(found, 1, node, definition=2) == []


def test_a_node_that_falls_silent_says_nothing(cluster, monkeypatch):
    node, found = cluster.nodes[0], Board(board.directory())
    cluster.verdicts(node, [seen(1, "passing")], full=True)
    assert verdict_of(found, 1, node) == ["passing"]
    monkeypatch.setattr(board, "SILENT_AFTER_S", 0.0)
    assert verdict_of(found, 1, node) == []


def test_a_repeated_span_replaces_itself(cluster):
    node = cluster.nodes[0]
    span = {"service_id": 1, "from_us": 10, "at_us": 10, "outcome": "passing", "checks": 1, "latency_ms": 1.0,
            "latency_ms_max": 1.0, "detail": ""}  # fmt: skip
    for more in ({}, {"checks": 5, "at_us": 60}):
        answer = call(cluster.node_token(node), "POST", "/agent/spans", {"node": node, "spans": [{**span, **more}]})
        assert answer.json() == {"acked": 1}
    row = CheckSpan.objects.get()
    assert (row.checks, row.at_us, row.node) == (5, 60, node)


@given(st.integers(1, 10**6), st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 9))
def test_a_node_that_leaves_moves_its_own_share_only(service_id, nodes, count):
    before = vantage.chosen(service_id, sorted(nodes), count)
    assert len(before) == min(count, len(nodes))
    for gone in nodes:
        after = vantage.chosen(service_id, sorted(nodes - {gone}), count)
        assert set(before) - {gone} <= set(after)

"""A followed log shows each line once, in the order of arrival, however late a node reports."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instances.conftest import Platform
from instances.models import LogArrival, Node
from instances.telemetry import arrivals, ingest, retention
from instances.telemetry.arrivals import Place
from instances.telemetry.logs import Wanted
from omni.kernel import clock
from omni.kernel.errors import Gone
from omni.testing.factories import make_instance

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


@pytest.fixture
def two(platform: Platform) -> list[Any]:
    """Two instances of one app on two nodes."""
    app = platform.app()
    return [make_instance(app, node=node, slot=i, on_node=True) for i, node in enumerate(Node.objects.all()[:2])]


def send(row: Any, first: int, texts: list[str], at_us: int = 10**15, stream: int = 0) -> None:
    lines = [[at_us, stream, text] for text in texts]
    ingest.store_logs(row.node.name, [{"instance_id": row.pk, "first_seq": first, "lines": lines}])


def texts(found: arrivals.Found) -> list[str]:
    return [row[4] for _, row in found.rows]


def test_lines_of_a_node_that_reports_late_come_after_what_was_read(two: list[Any]) -> None:
    early, late = two
    send(early, 1, ["a1", "a2"], at_us=2_000_000)
    wanted = Wanted(early.app_id, None, 100)
    first = arrivals.tail(wanted)
    assert texts(first) == ["a1", "a2"]
    send(late, 1, ["b1"], at_us=1_000_000)  # older than what was read
    send(early, 3, ["a3"], at_us=3_000_000)
    second = arrivals.after(wanted, first.reached)
    assert (texts(second), second.more) == (["b1", "a3"], False)
    assert texts(arrivals.after(wanted, second.reached)) == []
    send(late, 1, ["b1"], at_us=1_000_000)  # repeated by its agent
    assert texts(arrivals.after(wanted, second.reached)) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 7)), min_size=1, max_size=12), st.integers(1, 9))
def test_pages_of_any_size_show_every_line_once(two: list[Any], batches: list[tuple[int, int]], limit: int) -> None:
    app_id = two[0].app_id
    newest = arrivals.numbers_of([app_id]).get(app_id, 0)
    place, sent = Place(newest, 10**17), []
    for which, count in batches:
        row = two[which]
        offset = ingest._lock_offsets(row.node.name, {row.pk: app_id}, [row.pk])[row.pk]
        lines = [f"{which}.{offset + i + 1}" for i in range(count)]
        send(row, offset + 1, lines)
        sent += lines
    seen: list[str] = []
    more = True
    while more:
        found = arrivals.after(Wanted(app_id, None, limit), place)
        assert len(found.rows) <= limit
        assert [at for at, _ in found.rows] == sorted(at for at, _ in found.rows)
        seen += texts(found)
        place, more = found.reached, found.more
    assert seen == sent
    tail = arrivals.tail(Wanted(app_id, None, limit))
    assert texts(tail) == sent[-limit:] or len(sent) < limit


def test_a_search_goes_on_behind_what_it_looked_at(two: list[Any]) -> None:
    send(two[0], 1, [f"line {i}" for i in range(30)])
    send(two[1], 1, ["an Error"], stream=1)
    wanted = Wanted(two[0].app_id, None, 10, text="error")
    found = arrivals.after(wanted, Place(0, 0))
    assert texts(found) == ["an Error"]
    assert found.reached == Place(2, 1)
    errors = arrivals.tail(Wanted(two[0].app_id, None, 10, stream=1))
    assert texts(errors) == ["an Error"]
    assert texts(arrivals.after(wanted, errors.reached)) == []


def test_what_retention_removed_is_gone_and_says_where_the_log_begins(two: list[Any], settings: Any) -> None:
    now = clock.to_us(clock.now())
    old = now - int(2 * settings.CONFIG.timings.log_retention_s * 1e6)
    for i in range(4):
        send(two[0], i + 1, [f"line {i}"], at_us=old if i < 3 else now)
    LogArrival.objects.filter(arrival__lte=3).update(at_us=old)
    retention.trim_logs(0, now)
    wanted = Wanted(two[0].app_id, None, 10)
    with pytest.raises(Gone, match=r"after a3\.0"):
        arrivals.after(wanted, Place(1, 1))
    assert texts(arrivals.after(wanted, Place(3, 3))) == ["line 3"]
    assert texts(arrivals.tail(wanted)) == ["line 3"]


def test_a_stream_is_told_what_it_shares_and_where_it_looked(two: list[Any], platform: Platform) -> None:
    send(two[0], 1, ["one", "two"])
    base = f"/app/{two[0].app_id}/logs"
    first = platform.call("GET", f"{base}?follow=true&tail=1")
    body = first.json()
    assert [item["line"] for item in body["items"]] == ["two"]
    assert body["items"][0]["cursor"] == "a1.2"
    name = first.headers["Omni-Stream"]
    assert name.startswith(f"logs {two[0].app_id} ")
    assert platform.call("GET", f"/app/{two[0].app.name}/logs?follow=true&since=60s").headers["Omni-Stream"] == name
    assert platform.call("GET", f"{base}?follow=true&q=x").headers["Omni-Stream"] != name
    send(two[1], 1, ["three"])
    on = platform.call("GET", f"{base}?follow=true&cursor={body['seen']}").json()
    assert [item["line"] for item in on["items"]] == ["three"]
    assert on["seen"] == "a2.1"
    assert platform.call("GET", f"{base}?cursor=a1.1").json()["items"][0]["line"] == "two"
    one = platform.call("GET", f"/app/{two[0].app_id}/instances/{two[0].pk}/logs?follow=true&q=zzz&tail=5")
    assert one.json()["seen"].endswith(f".{two[0].pk}.2")


def test_followed_events_are_shared_by_who_sees_the_same(platform: Platform) -> None:
    from instances.conftest import call
    from omni.testing.factories import make_token

    def name(token: str, query: str = "") -> str:
        answer = call(token, "GET", f"/events?follow=true{query}")
        assert answer.json()["seen"]
        return str(answer.headers["Omni-Stream"])

    mine, also = make_token(platform.org), make_token(platform.org, role="viewer")
    assert name(mine) == name(also)
    assert name(mine) != name(platform.token)
    assert name(mine) != name(mine, "&kind=app.created")

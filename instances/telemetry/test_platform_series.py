"""The control plane's series: steps and members add up, a roll-up keeps every count, gaps are null."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instances.telemetry import platform_series, rolling, spans
from instances.telemetry.platform_series import Counted, from_json, merged, quantile_s, series_key, split_key
from omni.kernel import clock

BOUNDS = (0.1, 1.0)
histograms = st.tuples(*[st.integers(0, 1000)] * 3).map(
    lambda buckets: Counted(sum(buckets), sum(buckets) * 0.2, None, BOUNDS, tuple(buckets))
)


@given(st.lists(histograms, min_size=1, max_size=6))
def test_adding_steps_loses_no_observation_and_keeps_the_form(parts: list[Counted]) -> None:
    whole = merged({"x": part} for part in parts)["x"]
    assert whole.count == sum(part.count for part in parts) == sum(whole.buckets)
    assert whole.kind == "histogram"
    again = from_json(whole.to_json())
    assert (again.count, again.buckets, again.bounds) == (whole.count, whole.buckets, whole.bounds)


@given(histograms)
def test_quantiles_ascend_and_stay_within_the_bounds(counted: Counted) -> None:
    found = [quantile_s(counted, share) for share in (0.5, 0.95, 0.99)]
    if not counted.count:
        assert found == [None, None, None]
    else:
        values = [value for value in found if value is not None]
        assert values == sorted(values)
        assert 0 <= values[0] <= values[-1] <= BOUNDS[-1]


def test_a_series_is_named_by_its_labels() -> None:
    key = series_key("omni_http_requests", {"route": "/app/{app}/info", "method": "GET"})
    assert split_key(key) == ("omni_http_requests", {"method": "GET", "route": "/app/{app}/info"})
    assert split_key("omni_leader") == ("omni_leader", {})


@pytest.mark.database
@pytest.mark.django_db(databases=["telemetry"])
def test_ten_seconds_become_minutes_and_minutes_ten_minutes() -> None:
    now = clock.to_us(clock.now())
    start = (now - 1_500_000_000) // 600_000_000 * 600_000_000
    counted = Counted(2, 0.4, None, BOUNDS, (1, 1, 0))
    for step in range(60):
        for node in ("a", "b"):
            series = {"omni_commit_seconds": counted, "omni_leader": Counted(1, step, step), "omni_x": Counted(0, 3)}
            platform_series.store(node, 10, start + step * 10_000_000, series)
    rolling.RollUp().tick(now)
    rolling.RollUp().tick(now)
    assert len(platform_series.rows(60, start, start + 600_000_000)) == 20
    rolled = {node: series for node, _, series in platform_series.rows(600, start, start + 1)}
    assert rolled["a"]["omni_commit_seconds"].buckets == (60, 60, 0)
    assert rolled["a"]["omni_leader"] == Counted(60, sum(range(60)), 59)
    shown = platform_series.read(spans.Span(3_600_000_000, 600_000_000))
    by_name = {series["name"]: series for series in shown["series"]}
    at = shown["at"].index(clock.rfc3339(clock.from_us(start)))
    assert by_name["omni_commit_seconds"]["count"][at] == 240
    assert by_name["omni_commit_seconds"]["per_second"][at] == 0.4
    assert by_name["omni_x"]["count"][at] == 360
    assert by_name["omni_leader"]["value"][at] == 29.5
    assert None in by_name["omni_x"]["count"]


@pytest.mark.database
@pytest.mark.django_db(databases=["telemetry"])
def test_a_window_shows_one_member_and_chosen_names() -> None:
    at = clock.to_us(clock.now()) - 20_000_000
    platform_series.store("a", 10, at // 10_000_000 * 10_000_000, {"omni_x": Counted(0, 1), "omni_y": Counted(0, 1)})
    platform_series.store("b", 10, at // 10_000_000 * 10_000_000, {"omni_x": Counted(0, 5)})
    span = spans.Span(60_000_000, 10_000_000)
    (only,) = platform_series.read(span, names=frozenset({"omni_x"}), node="b")["series"]
    assert sum(filter(None, only["count"])) == 5
    assert [series["name"] for series in platform_series.read(span)["series"]] == ["omni_x", "omni_y"]

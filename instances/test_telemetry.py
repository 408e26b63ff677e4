"""Logs and figures: idempotent, ordered, paged by key, null where nobody measured."""

from __future__ import annotations

import pytest

from agent.routing import LATENCY_BUCKETS_MS
from instances.conftest import Platform, call, node_token
from instances.models import HostSample, LogLine, LogOffset, Node, RequestSample, Sample
from instances.telemetry import figures, ingest, quantiles, retention, spans
from omni.kernel import clock
from omni.kernel.errors import InvalidInput, Malformed
from omni.testing.factories import make_instance, make_org, make_token

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]
T0 = 1_790_000_000_000_000


def lines(first: int, count: int, stream: int = 0, gap_us: int = 1000):
    return [[T0 + (first + i) * gap_us, stream, f"line {first + i}"] for i in range(count)]


@pytest.fixture
def running(platform: Platform):
    app = platform.app()
    return make_instance(app, node=Node.objects.all()[0], on_node=True)


def send(row, first: int, some: list):
    batch = {"instance_id": row.pk, "app_id": row.app_id, "first_seq": first, "lines": some}
    return call(node_token(row.node.name), "POST", "/agent/logs", {"node": row.node.name, "batches": [batch]}).json()


def logs(platform, row, query: str = ""):
    return platform.call("GET", f"/app/{row.app_id}/instances/{row.pk}/logs?{query}").json()


def numbers(page) -> list[int]:
    return [int(item["line"].split()[-1]) for item in page["items"]]


def test_a_repeated_batch_changes_nothing_and_an_overlapping_one_adds_the_rest(running):
    assert send(running, 1, lines(1, 10))["acked"] == {str(running.pk): 10}
    assert send(running, 1, lines(1, 10))["acked"] == {str(running.pk): 10}
    assert send(running, 6, lines(6, 10))["acked"] == {str(running.pk): 15}
    found = LogLine.objects.order_by("seq").values_list("seq", "line")
    assert list(found) == [(i, f"line {i}") for i in range(1, 16)]


def test_a_gap_stores_nothing_and_says_where_to_go_on(running):
    send(running, 1, lines(1, 5))
    assert send(running, 8, lines(8, 5))["acked"] == {str(running.pk): 5}
    assert LogLine.objects.count() == 5


def test_lines_of_unknown_and_foreign_instances_are_dropped(running, platform):
    other = platform.node_names[1]
    batch = {"instance_id": running.pk, "app_id": running.app_id, "first_seq": 1, "lines": lines(1, 1)}
    answer = call(node_token(other), "POST", "/agent/logs", {"node": other, "batches": [batch]}).json()
    assert answer == {"acked": {}, "unknown": [running.pk]}
    assert not LogLine.objects.exists()


@pytest.mark.parametrize("bad", [[["x", 0, "a"]], [[1, 0]], ["text"], [[1, 0, 5]]])
def test_a_malformed_line_refuses_the_whole_post(running, bad):
    with pytest.raises(Malformed):
        ingest.store_logs(running.node.name, [{"instance_id": running.pk, "app_id": 1, "first_seq": 1, "lines": bad}])
    assert not LogLine.objects.exists()


def test_pages_walk_the_whole_log_forwards_and_back(running, platform):
    send(running, 1, lines(1, 25))
    page = logs(platform, running, "limit=10")
    assert numbers(page) == list(range(1, 11))
    assert page["previous"] is None
    page = platform.call("GET", page["next"]).json()
    assert numbers(page) == list(range(11, 21))
    back = platform.call("GET", page["previous"]).json()
    assert numbers(back) == list(range(1, 11))
    page = platform.call("GET", page["next"]).json()
    assert (numbers(page), page["next"]) == ([21, 22, 23, 24, 25], None)


def test_tail_is_the_last_ascending_and_a_lines_cursor_goes_on_after_it(running, platform):
    send(running, 1, lines(1, 25))
    page = logs(platform, running, "tail=3")
    assert numbers(page) == [23, 24, 25]
    assert numbers(platform.call("GET", page["previous"]).json())[-1] == 22
    cursor = page["items"][-1]["cursor"]
    assert logs(platform, running, f"cursor={cursor}")["items"] == []
    send(running, 26, lines(26, 2))
    assert numbers(logs(platform, running, f"cursor={cursor}&follow=true")) == [26, 27]


def test_stream_text_and_time_select(running, platform):
    send(running, 1, lines(1, 5))
    send(running, 6, lines(6, 5, stream=1))
    assert numbers(logs(platform, running, "stream=stderr")) == [6, 7, 8, 9, 10]
    assert numbers(logs(platform, running, "q=LINE 7")) == [7]
    assert numbers(logs(platform, running, "stream=stdout&tail=2")) == [4, 5]
    since = clock.rfc3339(clock.from_us(T0 + 4000))
    until = clock.rfc3339(clock.from_us(T0 + 7000))
    assert numbers(logs(platform, running, f"since={since}&until={until}")) == [4, 5, 6]
    merged = platform.call("GET", f"/app/{running.app_id}/logs?since={since}&until={until}").json()
    assert numbers(merged) == [4, 5, 6]
    assert logs(platform, running, "since=yesterday")["code"] == "invalid"
    assert logs(platform, running, "cursor=abc")["code"] == "invalid"


def test_a_search_pages_too(running, platform):
    send(running, 1, lines(1, 30))
    page = logs(platform, running, "q=line&limit=20")
    assert len(page["items"]) == 20
    assert len(platform.call("GET", page["next"]).json()["items"]) == 10


def test_the_merged_log_is_in_the_order_of_time_across_instances_and_pages(running, platform):
    other = make_instance(running.app, running.release, Node.objects.all()[1], slot=1, on_node=True)
    send(running, 1, [[T0 + i * 2, 0, f"a {2 * i}"] for i in range(10)])
    send(other, 1, [[T0 + i * 2 + 1, 0, f"b {2 * i + 1}"] for i in range(10)])
    url, seen = f"/app/{running.app_id}/logs?limit=7", []
    while url:
        page = platform.call("GET", url).json()
        seen += numbers(page)
        url = page["next"]
    assert seen == list(range(20))
    tail = platform.call("GET", f"/app/{running.app_id}/logs?tail=4").json()
    assert numbers(tail) == [16, 17, 18, 19]
    assert numbers(platform.call("GET", tail["previous"]).json())[-1] == 15


def test_equal_times_lose_and_repeat_no_line(running, platform):
    other = make_instance(running.app, running.release, Node.objects.all()[1], slot=1, on_node=True)
    send(running, 1, [[T0, 0, f"a {i}"] for i in range(5)])
    send(other, 1, [[T0, 0, f"b {i}"] for i in range(5, 10)])
    url, seen = f"/app/{running.app_id}/logs?limit=3", []
    while url:
        page = platform.call("GET", url).json()
        seen += numbers(page)
        url = page["next"]
    assert seen == list(range(10))


def sample(row, at_us: int, **fields):
    defaults = {"cpu_percent": 10.0, "memory_bytes": 100, "memory_limit_bytes": 1000, "network_rx_bytes": None,
                "network_tx_bytes": None, "restarts": 0, "uptime_s": 5.0}  # fmt: skip
    return {"instance_id": row.pk, "app_id": row.app_id, "at_us": at_us, **defaults, **fields}


def send_samples(row, samples, host=None):
    return call(node_token(row.node.name), "POST", "/agent/samples",
                {"node": row.node.name, "samples": samples, "host": host})  # fmt: skip


def test_metrics_of_an_app_nobody_measured_are_null_never_zero(running):
    body = figures.app_metrics(running.app_id)
    assert body["instances"] == {"desired": 1, "running": 1, "healthy": 1}
    for name in ("cpu_percent", "memory_bytes", "network_rx_bytes", "requests_per_second", "error_rate"):
        assert body[name] is None
    assert body["response_ms"] == {"p50": None, "p95": None, "p99": None}
    assert body["restarts"] == 0


def test_metrics_sum_fresh_samples_of_running_instances(running, platform):
    now = clock.to_us(clock.now())
    other = make_instance(running.app, running.release, running.node, slot=1, on_node=True)
    ended = make_instance(running.app, running.release, running.node, slot=2, status="stopped", on_node=True)
    host = {"at_us": now, "cpu_percent": 1.0, "memory_used_bytes": 1, "memory_total_bytes": 2, "disk_free_bytes": 3,
            "load_1m": 0.5}  # fmt: skip
    assert send_samples(running, [sample(r, now) for r in (running, other, ended)], host).status_code == 200
    send_samples(running, [sample(running, now)])  # repeated: dropped
    assert Sample.objects.count() == 3
    assert HostSample.objects.count() == 1
    body = figures.read_app(running.app_id).body
    assert (body["cpu_percent"], body["memory_bytes"], body["memory_limit_bytes"]) == (20.0, 200, 2000)
    listed = platform.call("GET", f"/app/{running.app_id}/instances").json()["items"]
    assert {item["cpu_percent"] for item in listed if item["status"] == "running"} == {10.0}
    one = platform.call("GET", f"/app/{running.app_id}/instances/{running.pk}/metrics?window=5m&step=10s").json()
    assert one["memory_bytes"] == 100
    assert len(one["series"]["points"]) == 30
    assert [p["cpu_percent"] for p in one["series"]["points"] if p["cpu_percent"] is not None] == [10.0]


def test_a_stale_sample_says_nothing_about_now(running):
    old = clock.to_us(clock.now()) - 60_000_000
    send_samples(running, [sample(running, old)])
    assert figures.read_app(running.app_id).body["cpu_percent"] is None


def test_requests_become_rates_and_quantiles(running):
    now = clock.to_us(clock.now())
    histogram = [0] * (len(LATENCY_BUCKETS_MS) + 1)
    histogram[5] = 60
    row = {"app_id": running.app_id, "instance_id": running.pk, "at_us": now, "window_s": 5.0, "requests": 60,
           "failed": 6, "histogram": histogram}  # fmt: skip
    node = running.node.name
    assert call(node_token(node), "POST", "/agent/requests", {"node": node, "rows": [row]}).status_code == 200
    body = figures.read_app(running.app_id).body
    assert (body["requests_per_second"], body["error_rate"]) == (2.0, 0.1)
    assert 7 <= body["response_ms"]["p50"] <= body["response_ms"]["p99"] <= 10


def _post_requests(row, numbers: list[int], first_seq: int, source: str = "s1") -> int:
    now = clock.to_us(clock.now())
    rows = [
        {"app_id": row.app_id, "instance_id": row.pk, "at_us": now, "window_s": 5.0, "requests": number, "failed": 0,
         "histogram": []}
        for number in numbers
    ]  # fmt: skip
    body = {"node": row.node.name, "rows": rows, "source": source, "first_seq": first_seq}
    return call(node_token(row.node.name), "POST", "/agent/requests", body).status_code


def _counted() -> list[int]:
    return list(RequestSample.objects.order_by("id").values_list("requests", flat=True))


def test_a_repeated_row_of_request_counts_is_stored_once(running):
    for _ in range(2):
        assert _post_requests(running, [1, 2, 3], 1) == 200
    assert _post_requests(running, [2, 3, 4], 2) == 200
    assert _counted() == [1, 2, 3, 4]
    assert _post_requests(running, [9], 9) == 200, "rows between were dropped by the ingress: nothing waits for them"
    assert _post_requests(running, [4, 9], 8) == 200
    assert _counted() == [1, 2, 3, 4, 9]


def test_an_ingress_that_lost_its_numbers_and_another_node_begin_anew(running, platform):
    assert _post_requests(running, [1, 2], 1) == 200
    assert _post_requests(running, [5], 1, source="s2") == 200
    other = make_instance(running.app, node=Node.objects.exclude(pk=running.node_id)[0], on_node=True, slot=7)
    assert _post_requests(other, [7], 1) == 200
    assert _counted() == [1, 2, 5, 7]
    assert _post_requests(running, [1], 0) == 400
    assert _post_requests(running, [1], 1, source="x" * 33) == 400


def test_quantiles():
    counts = [0] * (len(LATENCY_BUCKETS_MS) + 1)
    assert quantiles.quantile(counts, 0.5) is None
    counts[-1] = 1
    assert quantiles.quantile(counts, 0.5) == LATENCY_BUCKETS_MS[-1]
    counts = [100] + [0] * len(LATENCY_BUCKETS_MS)
    assert quantiles.quantile(counts, 0.5) == 0.5


def test_spans():
    assert spans.read(None, None) is None
    assert spans.read("1h", "10s") == spans.Span(3_600_000_000, 10_000_000)
    assert spans.read("1h", None).step_us == 10_000_000
    for window, step in [("1h", "1ms"), ("x", "1s"), ("1s", "1h"), ("1h", "0s")]:
        with pytest.raises(InvalidInput):
            spans.read(window, step)


def test_roll_up_and_retention(running, settings):
    now = clock.to_us(clock.now())
    minute = (now - 180_000_000) // 60_000_000 * 60_000_000
    send_samples(running, [sample(running, minute + i * 5_000_000, cpu_percent=float(i)) for i in range(12)])
    old = now - int(2 * settings.CONFIG.timings.sample_retention_s * 1e6)
    send_samples(running, [sample(running, old)])
    retention.Retention().tick()
    rolled = Sample.objects.get(step_s=60, at_us=minute)
    assert (rolled.cpu_percent, rolled.cpu_percent_max, rolled.memory_bytes) == (5.5, 11.0, 100)
    assert not Sample.objects.filter(at_us=old).exists()
    assert Sample.objects.filter(step_s=5).count() == 12
    retention.Retention().tick()
    assert Sample.objects.filter(step_s=60, at_us=minute).count() == 1


def test_logs_are_trimmed_by_age_and_count(running, settings, monkeypatch, platform):
    fresh = clock.to_us(clock.now())
    old = fresh - int(2 * settings.CONFIG.timings.log_retention_s * 1e6)
    send(running, 1, [[old + i, 0, "old 0"] for i in range(10)] + [[fresh + i, 0, f"new {i}"] for i in range(20)])
    retention.trim_logs(0, fresh)
    assert LogLine.objects.count() == 20
    assert LogOffset.objects.get().first_seq == 11
    limits = settings.CONFIG.limits.model_copy(update={"log_lines_per_app": 5})
    monkeypatch.setattr(type(settings.CONFIG), "limits", limits, raising=False)
    monkeypatch.setitem(settings.CONFIG.__dict__, "limits", limits)
    retention.trim_logs(0, fresh)
    assert numbers(logs(platform, running)) == [15, 16, 17, 18, 19]
    assert send(running, 31, [[fresh, 0, "new 20"]])["acked"] == {str(running.pk): 31}


def test_telemetry_of_purged_instances_is_swept(running):
    send(running, 1, lines(1, 3))
    LogOffset.objects.create(instance_id=424242, app_id=1, node="x", last_seq=2)
    LogLine.objects.create(instance_id=424242, seq=1, app_id=1, at_us=1, stream=0, line="late")
    assert retention.sweep_unknown() == 1
    assert not LogLine.objects.filter(instance_id=424242).exists()
    assert LogLine.objects.count() == 3


def test_another_org_sees_nothing_of_an_instance(running, platform):
    send(running, 1, lines(1, 3))
    foreign = make_token(make_org(), role="owner")
    base = f"/app/{running.app_id}"
    for path in ("/instances", f"/instances/{running.pk}/logs", f"/instances/{running.pk}/metrics",
                 f"/instances/{running.pk}/details", "/logs", "/deployments"):  # fmt: skip
        assert call(foreign, "GET", base + path).status_code == 404, path
    assert call(foreign, "POST", f"{base}/instances/{running.pk}/stop").status_code == 404
    other = platform.app()
    assert platform.call("GET", f"/app/{other.pk}/instances/{running.pk}/logs").status_code == 404
    assert call(foreign, "GET", "/nodes").status_code == 403
    viewer = make_token(platform.org, role="viewer")
    assert call(viewer, "GET", f"{base}/instances/{running.pk}/logs").status_code == 200
    assert call(viewer, "POST", f"{base}/instances/{running.pk}/stop").status_code == 403


def test_lists_cost_the_same_number_of_queries_however_long(platform, django_assert_max_num_queries):
    app = platform.app(instances=100)
    node = Node.objects.all()[0]
    for slot in range(60):
        make_instance(app, node=node, slot=slot, on_node=True)
    platform.call("GET", f"/app/{app.pk}/instances?limit=1")
    with django_assert_max_num_queries(4):
        answer = platform.call("GET", f"/app/{app.pk}/instances?limit=100")
    items = answer.json()["items"]
    assert len(items) == 60
    assert items[0]["id"] > items[-1]["id"]
    assert {"id", "slot", "status", "health", "version", "node", "address", "cpu_percent", "memory_bytes", "restarts",
            "uptime_s", "started_at"} <= items[0].keys()  # fmt: skip
    with django_assert_max_num_queries(4):
        assert len(platform.call("GET", "/nodes").json()["items"]) == 3
    assert platform.call("GET", f"/nodes/{node.name}").json()["instances"] == 60


@pytest.mark.slow
def test_filters_of_the_instance_list(running, platform):
    make_instance(running.app, running.release, running.node, slot=1, status="stopped", desired="remove")
    base = f"/app/{running.app_id}/instances"
    assert [i["id"] for i in platform.call("GET", base).json()["items"]] == [running.pk]
    assert len(platform.call("GET", base + "?status=all").json()["items"]) == 2
    assert len(platform.call("GET", base + "?status=stopped,failed").json()["items"]) == 1
    assert platform.call("GET", base + f"?node={running.node.name}&version=v1").json()["items"]
    assert not platform.call("GET", base + "?version=v9").json()["items"]
    assert platform.call("GET", base + "?status=nonsense").status_code == 422

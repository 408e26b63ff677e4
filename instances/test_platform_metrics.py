"""`/metrics`: true with several processes, only for who may read it; the series behind `/cluster/metrics`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from instances.conftest import Platform, call
from instances.models import LatestSample, Node
from instances.telemetry import platform_series
from instances.telemetry.platform_series import Counted
from omni.api import measured
from omni.daemon.recording import Recorder, growth
from omni.front.route_names import OTHER, name_of
from omni.kernel import clock, measures
from omni.testing.factories import make_instance, make_token

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]

COUNT = """
from omni.kernel import measures
for _ in range(5):
    measures.requests.labels("GET", "/app", "2xx").inc()
measures.commit_seconds.observe(0.003)
measures.streams.inc(7)
"""


def test_paths_become_routes_and_what_a_stranger_thinks_up_does_not() -> None:
    assert name_of("/app") == "/app"
    assert name_of("/app/web/info") == "/app/{app}/info"
    assert name_of("/app/web/instances/12/logs") == "/app/{app}/instances/{instance_id}/logs"
    assert name_of("/app/web/instances/x/logs") == OTHER
    assert name_of("/admin/auth/user/3/change/") == "/admin/"
    assert name_of("/wp-login.php") == OTHER


def test_processes_that_ended_count_on_and_are_no_gauge_any_more(tmp_path: Path, monkeypatch: Any) -> None:
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", COUNT], check=True, timeout=60, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        )
    monkeypatch.setattr(measures, "FOLDER", str(tmp_path))
    found = measured.totals()
    assert found["omni_http_requests|method=GET,route=/app,status=2xx"].total == 10
    commits = found["omni_commit_seconds"]
    assert (commits.count, sum(commits.buckets), len(commits.bounds) + 1) == (2, 2, len(commits.buckets))
    assert not any(key.startswith("omni_http_streams") and counted.total for key, counted in found.items())


def test_the_text_is_prometheus_and_needs_its_scope(platform: Platform) -> None:
    row = make_instance(platform.app(), node=Node.objects.all()[0], on_node=True)
    now = clock.to_us(clock.now())
    LatestSample.objects.create(instance_id=row.pk, app_id=row.app_id, at_us=now, cpu_percent=12.5, memory_bytes=None)
    measures.requests.labels("GET", "/app", "2xx").inc()
    answer = platform.call("GET", "/metrics")
    assert answer.status_code == 200
    families = {family.name: family for family in text_string_to_metric_families(answer.content.decode())}
    assert {"omni_http_requests", "omni_commit_seconds", "omni_leader", "omni_apps"} <= families.keys()
    assert call(make_token(platform.org, role="owner"), "GET", "/metrics").status_code == 403
    assert call("", "GET", "/metrics").status_code == 401
    assert call(make_token(platform.org, role="owner"), "GET", "/cluster/metrics").status_code == 403


def test_what_was_counted_between_two_readings_is_one_step() -> None:
    readings = iter([
        {"a": Counted(0, 5.0), "g": Counted(1, 3, 3), "h": Counted(2, 1.0, None, (1.0,), (2, 0))},
        {"a": Counted(0, 9.0), "g": Counted(1, 4, 4), "h": Counted(3, 6.0, None, (1.0,), (2, 1)), "b": Counted(0, 1)},
    ])  # fmt: skip
    recorder = Recorder("n", lambda: next(readings))
    at = clock.to_us(clock.now()) // 10_000_000 * 10_000_000
    recorder.tick(at)
    recorder.tick(at + 10_000_000)
    ((node, stored, series),) = platform_series.rows(10, at - 10_000_000, at + 20_000_000)
    assert (node, stored) == ("n", at)
    assert series == {
        "a": Counted(0, 4.0), "b": Counted(0, 1.0), "g": Counted(1, 4, 4),
        "h": Counted(1, 5.0, None, (1.0,), (0, 1)),
    }  # fmt: skip


def test_a_counter_that_began_anew_counts_from_nought() -> None:
    assert growth({"a": Counted(0, 50)}, {"a": Counted(0, 3)}) == {"a": Counted(0, 3)}
    assert growth({"a": Counted(0, 50)}, {"a": Counted(0, 50)}) == {}


def test_a_node_shows_its_host_over_time(platform: Platform) -> None:
    from instances.models import HostSample

    node = Node.objects.all()[0]
    now = clock.to_us(clock.now())
    for i in range(3):
        HostSample.objects.create(node=node.name, at_us=now - i * 5_000_000, cpu_percent=10.0 * i, load_1m=1.0,
                                  memory_used_bytes=5, memory_total_bytes=10, disk_free_bytes=7 - i)  # fmt: skip
    body = platform.call("GET", f"/nodes/{node.name}/metrics?window=5m&step=10s").json()
    points = [point for point in body["series"]["points"] if point["cpu_percent"] is not None]
    assert max(point["cpu_percent_max"] for point in points) == 20.0
    assert min(point["disk_free_bytes"] for point in points) == 5

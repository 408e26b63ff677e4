"""What our own processes count and time about themselves.

Owns the instruments: their names, labels and buckets. Everything that is shown of the control plane (`/metrics`, the
stored series) is read from them. Labels are few and bounded: a route's pattern, never a path; no process id.

Several processes of a node (web workers, daemon) count into files of one folder, which prometheus_client merges; where
the folder is comes with the environment (`PROMETHEUS_MULTIPROC_DIR`), set by `omni.launch.plan` and emptied when the
node starts. Without it (tests, commands) each process counts for itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
if FOLDER:
    Path(FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)

from prometheus_client import Counter, Gauge, Histogram  # noqa: E402 - its values choose their place when it is imported

_REQUEST_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LONG_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_LAG_S = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)

requests = Counter("omni_http_requests", "Requests answered, by route and status class", ["method", "route", "status"])
request_seconds = Histogram(
    "omni_http_request_seconds", "Time to the answer, without watching reads and streams", ["route"], buckets=_REQUEST_S
)
streams = Gauge("omni_http_streams", "Event streams that are open", multiprocess_mode="livesum")
in_django = Gauge(
    "omni_http_queue_depth", "Requests that are computed or wait for a thread", multiprocess_mode="livesum"
)
commit_seconds = Histogram("omni_commit_seconds", "From the first statement of a write to its commit", buckets=_SHORT_S)
fence_refusals = Counter("omni_fence_refusals", "Writes of a deposed leader that the fence refused")
leaderships = Counter("omni_leader_changes", "Times that this member took over the leadership")
loop_seconds = Histogram("omni_loop_seconds", "One tick of a loop of the leader", ["loop"], buckets=_SHORT_S)
loop_failures = Counter("omni_loop_failures", "Ticks that failed", ["loop"])
build_seconds = Histogram("omni_build_seconds", "From the claim of a build to its end", ["outcome"], buckets=_LONG_S)
build_wait_seconds = Histogram("omni_build_wait_seconds", "From the upload to the claim of its build", buckets=_LONG_S)
ingest_lag_seconds = Histogram(
    "omni_ingest_lag_seconds", "Age of the oldest line or figure of a post when it is stored", ["kind"], buckets=_LAG_S
)
ingested = Counter("omni_ingested", "Log lines and figures stored", ["kind"])
log_lines_dropped = Counter("omni_log_lines_dropped", "Log lines that nodes dropped because they came too fast")


@contextlib.contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Seconds until the block ends, however it ends."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        histogram.observe(time.perf_counter() - begun)


def status_class(status: int) -> str:
    """`2xx` … `5xx`: single codes would multiply the series."""
    return f"{status // 100}xx"

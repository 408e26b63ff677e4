"""What this member can say about the control plane right now: its processes' counts, and figures that are looked up.

Owns the choice: what the processes of this node counted (`omni.kernel.measures`, merged over all of them), and gauges.
Platform-wide figures come from the leader alone, those of instances from the member whose node runs them, so that
whoever adds up all members counts nothing twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from django.conf import settings
from django.db import Error
from django.db.models import Count
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from apps.models import App
from consensus import gate
from consensus.lease import ConsensusUnavailable
from consensus.raft.page import RaftPage
from instances.models import Instance, Node
from instances.states import LIVE
from instances.telemetry.platform_series import Counted, series_key
from omni.kernel import measures
from omni.rest import index
from releases.models import Build
from releases.states import BuildStatus

_PREFIX = "omni_"


@dataclass(frozen=True, slots=True)
class Reading:
    """One gauge as it is now."""

    name: str
    meaning: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def counted() -> Iterable[Metric]:
    """What all processes of this node counted since the node started."""
    if not measures.FOLDER:
        return [metric for metric in REGISTRY.collect() if metric.name.startswith(_PREFIX)]
    _forget_dead(Path(measures.FOLDER))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=measures.FOLDER)  # type: ignore[no-untyped-call]
    return registry.collect()


def _forget_dead(folder: Path) -> None:
    """A gauge that means "now" ends with its process; counters of dead processes go on counting."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with contextlib.suppress(OSError):
                file.unlink()


def readings() -> list[Reading]:
    """This member's gauges, and on the leader those of the platform. What does not answer is left out."""
    found = _own()
    if gate.leads():
        with contextlib.suppress(Error):
            found += _platform()
    return found


def _own() -> list[Reading]:
    config = settings.CONFIG
    found = [Reading("omni_leader", "1 on the member that leads", float(gate.leads()))]
    with contextlib.suppress(Error):
        found.append(Reading("omni_write_index", "The newest write that this member has seen", float(index.exact())))
    if len(config.members) < 2:
        return found
    with contextlib.suppress(ConsensusUnavailable):
        view = RaftPage(config.node_dir(config.me) / "raft.page").view()
        found += [
            Reading("omni_raft_term", "The Raft term that this member knows", float(view.term)),
            Reading("omni_raft_commit_index", "The newest Raft entry known to be committed", float(view.commit_index)),
            Reading("omni_raft_apply_lag", "Committed Raft entries that are not applied yet",
                    float(max(0, view.commit_index - view.applied_index))),
        ]  # fmt: skip
    return found


def _platform() -> list[Reading]:
    builds = dict(
        Build.objects.filter(status__in=(BuildStatus.QUEUED, BuildStatus.BUILDING))
        .order_by()
        .values_list("status")
        .annotate(Count("id"))
    )
    depth = "Builds that wait for a worker, and that one works on"
    found = [
        Reading("omni_builds", depth, float(builds.get(status, 0)), {"status": str(status)})
        for status in (BuildStatus.QUEUED, BuildStatus.BUILDING)
    ]
    for name, meaning, rows in (
        ("omni_apps", "Apps by desired state", App.objects.order_by().values_list("desired_state")),
        ("omni_instances", "Instances by status", Instance.objects.filter(status__in=LIVE).order_by()
         .values_list("status")),
        ("omni_nodes", "Nodes by status", Node.objects.order_by().values_list("status")),
    ):  # fmt: skip
        for status, count in rows.annotate(Count("id")):
            found.append(Reading(name, meaning, float(count), {"status": str(status)}))
    return found


def totals() -> dict[str, Counted]:
    """All of it as series: counters and histograms since the start of the node, gauges as they are."""
    found: dict[str, Counted] = {}
    for metric in counted():
        if metric.type == "histogram":
            found |= _histograms(metric)
        elif metric.type == "counter":
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    found[series_key(metric.name, sample.labels)] = Counted(0, sample.value)
        elif metric.type == "gauge":
            for sample in metric.samples:
                found[series_key(metric.name, sample.labels)] = Counted(1, sample.value, sample.value)
    for reading in readings():
        found[series_key(reading.name, reading.labels)] = Counted(1, reading.value, reading.value)
    return found


def _histograms(metric: Metric) -> dict[str, Counted]:
    """Prometheus' buckets are cumulative; ours are each on its own, so that steps can be added."""
    sums: dict[str, float] = {}
    ladders: dict[str, list[tuple[float, float]]] = {}
    for sample in metric.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = series_key(metric.name, labels)
        if sample.name.endswith("_bucket"):
            ladders.setdefault(key, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    found = {}
    for key, ladder in ladders.items():
        ladder.sort()
        below = [0.0, *(value for _, value in ladder[:-1])]
        buckets = tuple(value - lower for (_, value), lower in zip(ladder, below, strict=True))
        bounds = tuple(bound for bound, _ in ladder[:-1])
        found[key] = Counted(ladder[-1][1], sums.get(key, 0.0), None, bounds, buckets)
    return found

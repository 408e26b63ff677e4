"""Rows for benches, made past the verbs: apps by the thousand, releases, instances with fresh samples.

Run inside a platform's own Django (`Platform.manage`).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from accounts.models import Org
from apps.models import App, ConfigRevision
from consensus import gate
from instances.models import Instance, LatestSample, Node, Sample
from omni.kernel import clock
from omni.kernel.seal import seal
from releases.models import Artifact, Build, Release


def apps(count: int) -> tuple[int, int]:
    """`count` more apps with a release and one running instance each; the ids of the first and the last."""
    org, now = Org.objects.order_by("pk")[0], clock.now()
    start = (App.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1
    node = _node(now)
    numbers = range(start, start + count)
    with gate.maintenance("bench"):
        artifact, _ = Artifact.objects.get_or_create(
            sha256="a" * 64,
            defaults={"size": 1, "media_type": "application/x-tar", "kind": "package", "created_at": now},
        )
        _create(App, (_app(n, org, now) for n in numbers))
        _create(ConfigRevision, (_config(n, now) for n in numbers))
        _create(Build, (_build(n, artifact, now) for n in numbers))
        _create(Release, (_release(n, artifact, now) for n in numbers))
    instances([(n, 1) for n in numbers], node)
    return start, start + count - 1


def instances(wanted: list[tuple[int, int]], node: Node | None = None) -> None:
    """`(app, count)`: that many more running instances, each with a latest sample and two minutes of history."""
    now = clock.now()
    node = node or _node(now)
    with gate.maintenance("bench"):
        _create(Instance, (_instance(app, slot, node, now) for app, count in wanted for slot in range(count)))
    known = set(LatestSample.objects.values_list("instance_id", flat=True))
    rows = [row for row in Instance.objects.values_list("pk", "app_id") if row[0] not in known]
    at = clock.to_us(now)
    _create(LatestSample, (_latest(pk, app, at) for pk, app in rows))
    if len(rows) <= 200:
        _create(Sample, (_sample(pk, app, at - i * 5_000_000) for pk, app in rows for i in range(24)))


def _create(model: Any, rows: Any) -> None:
    model.objects.bulk_create(rows, batch_size=500)


def _node(now: dt.datetime) -> Node:
    with gate.maintenance("bench"):
        node, _ = Node.objects.get_or_create(
            name="bench-1",
            defaults={"address": "127.0.0.1", "status": "ready", "cpu_count": 8, "memory_mb": 1 << 20,
                      "status_since": now, "created_at": now},
        )  # fmt: skip
    return node


def _app(n: int, org: Org, now: dt.datetime) -> App:
    return App(
        pk=n, org=org, name=f"app-{n}", hostname=f"app-{n}", desired_release=1, deploy_serial=1, status="running",
        created_at=now, updated_at=now,
    )  # fmt: skip


def _config(n: int, now: dt.datetime) -> ConfigRevision:
    return ConfigRevision(
        pk=n, app_id=n, number=1, env=seal({}), memory_mb=32, cpu=0.1, restart_policy="always", stop_timeout_s=10,
        created_at=now, created_by="bench",
    )  # fmt: skip


def _build(n: int, artifact: Artifact, now: dt.datetime) -> Build:
    return Build(
        pk=n, app_id=n, version="1", version_key=f"{n}:1", artifact=artifact, status="succeeded", release_number=1,
        created_by="bench", created_at=now, finished_at=now,
    )  # fmt: skip


def _release(n: int, artifact: Artifact, now: dt.datetime) -> Release:
    return Release(
        pk=n, app_id=n, number=1, version="1", build_id=n, artifact=artifact, package=artifact,
        process_types={"web": "./run"}, config_id=n, reason="bench", created_by="bench", created_at=now,
    )  # fmt: skip


def _instance(app: int, slot: int, node: Node, now: dt.datetime) -> Instance:
    return Instance(
        app_id=app, slot=slot, release_id=app, node=node, memory_mb=32, cpu=0.1, status="running", health="healthy",
        address="127.0.0.1:20001", started_at=now, healthy_at=now, created_at=now,
    )  # fmt: skip


def _latest(pk: int, app: int, at_us: int) -> LatestSample:
    return LatestSample(
        instance_id=pk, app_id=app, at_us=at_us, cpu_percent=1.5, memory_bytes=10 << 20, memory_limit_bytes=32 << 20,
        network_rx_bytes=1, network_tx_bytes=1, restarts=0, uptime_s=60.0,
    )  # fmt: skip


def _sample(pk: int, app: int, at_us: int) -> Sample:
    return Sample(
        instance_id=pk, step_s=5, at_us=at_us, app_id=app, cpu_percent=1.5, cpu_percent_max=2.0,
        memory_bytes=10 << 20, memory_bytes_max=11 << 20,
    )  # fmt: skip

"""`manage.py seed`: fills an empty platform with apps, instances and nodes, for looking at pages and lists at size.

Owns made-up rows only, written through the models past the gate; refuses a database that has an app in it.
"""

from __future__ import annotations

import random
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.models import Model

from accounts.models import Org
from apps.models import App, ConfigRevision
from consensus import gate
from instances.models import Deployment, HostSample, Instance, LatestSample, Node, Sample
from omni.kernel import clock
from omni.kernel.models import ORDINALS, Event
from omni.kernel.seal import seal
from releases.models import Artifact, Build, Release

_BATCH = 1_000
_EVENTS = 20_000
_STATES = ("running",) * 94 + ("degraded",) * 3 + ("crashed",) + ("deploying",) + ("stopped",)


class Command(BaseCommand):
    help = "Fill an empty database with made-up apps, instances and nodes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--apps", type=int, default=10_000)
        parser.add_argument("--instances", type=int, default=100_000)
        parser.add_argument("--nodes", type=int, default=1_000)

    def handle(self, *args: Any, **options: Any) -> None:
        if App.objects.exists():
            raise CommandError("there are apps in this database already; seed fills an empty one only")
        with gate.maintenance("seed"):
            _Seed(options["apps"], options["instances"], options["nodes"]).fill()
        self.stdout.write(f"{options['apps']} apps, {options['instances']} instances, {options['nodes']} nodes")


class _Seed:
    """The same rows each time, but for the times."""

    def __init__(self, apps: int, instances: int, nodes: int) -> None:
        self.apps, self.nodes = range(1, apps + 1), range(1, nodes + 1)
        self.instances = range(1, instances + 1)
        self.now = clock.now()
        self.us = clock.to_us(self.now)
        self.dice = random.Random(7)  # noqa: S311 - which made-up app is ill
        self.states = {number: self.dice.choice(_STATES) for number in self.apps}

    def fill(self) -> None:
        times = {"created_at": self.now, "updated_at": self.now}
        self.org, _ = Org.objects.get_or_create(name="default", defaults=times)
        self.artifact = Artifact(
            sha256="a" * 64, size=2048, media_type="application/x-tar", kind="package", created_at=self.now
        )
        self.artifact.save(force_insert=True)
        self.env = seal({})
        each = len(self.instances) // max(1, len(self.apps))
        _create(Node, (self._node(n) for n in self.nodes))
        _create(App, (self._app(n, each) for n in self.apps))
        _create(ConfigRevision, (self._config(n) for n in self.apps))
        _create(Build, (self._build(n) for n in self.apps))
        _create(Release, (self._release(n) for n in self.apps))
        _create(Deployment, (self._deployment(n, each) for n in self.apps))
        _create(Instance, (self._instance(n) for n in self.instances))
        _create(LatestSample, (self._latest(n) for n in self.instances))
        _create(Sample, (self._sample(n, i) for n in self.instances[:200] for i in range(180)))
        _create(HostSample, (self._host(n, i) for n in self.nodes[:20] for i in range(180)))
        _create(Event, (self._event(n) for n in range(1, _EVENTS + 1)))

    def _node(self, n: int) -> Node:
        return Node(
            pk=n, name=f"host-{n:04}-8000", address=f"10.0.{n >> 8}.{n & 255}", status="ready" if n % 97 else "lost",
            cpu_count=16, memory_mb=65_536, facts={"runtimes": ["process"]}, status_since=self.now, created_at=self.now,
        )  # fmt: skip

    def _app(self, n: int, each: int) -> App:
        stopped = self.states[n] == "stopped"
        return App(
            pk=n, org=self.org, name=f"app-{n}", hostname=f"app-{n}", desired_release=1, deploy_serial=1,
            instances=each,
            desired_state="stopped" if stopped else "running", memory_mb=128, status=self.states[n],
            created_at=self.now, updated_at=self.now,
        )  # fmt: skip

    def _config(self, n: int) -> ConfigRevision:
        return ConfigRevision(
            pk=n, app_id=n, number=1, env=self.env, memory_mb=128, cpu=0.5, restart_policy="always", stop_timeout_s=10,
            created_at=self.now, created_by="seed",
        )  # fmt: skip

    def _build(self, n: int) -> Build:
        return Build(
            pk=n, app_id=n, version="1", version_key=f"{n}:1", artifact=self.artifact, status="succeeded",
            release_number=1, created_by="seed", created_at=self.now, finished_at=self.now,
        )  # fmt: skip

    def _release(self, n: int) -> Release:
        return Release(
            pk=n, app_id=n, number=1, version="1", build_id=n, artifact=self.artifact, package=self.artifact,
            process_types={"web": "./run"}, config_id=n, reason="seed", created_by="seed", created_at=self.now,
        )  # fmt: skip

    def _deployment(self, n: int, each: int) -> Deployment:
        rolling = self.states[n] == "deploying"
        return Deployment(
            pk=n, app_id=n, active_key=n if rolling else None, kind="deploy", serial=1, release_id=n,
            desired_instances=each, status="rolling" if rolling else "succeeded", created_by="seed",
            created_at=self.now, progress_at=self.now, finished_at=None if rolling else self.now,
        )  # fmt: skip

    def _instance(self, n: int) -> Instance:
        app = (n - 1) % len(self.apps) + 1
        slot, ill = (n - 1) // len(self.apps), self.states[app] in ("degraded", "crashed")
        down = ill and (slot == 0 or self.states[app] == "crashed")
        return Instance(
            pk=n, app_id=app, slot=slot, release_id=app, deployment_id=app, node_id=(n - 1) % len(self.nodes) + 1,
            memory_mb=128, cpu=0.5, status="crashed" if down else "running", health="unknown" if down else "healthy",
            restarts=5 if down else 0, last_exit={"signal": 9, "oom": True} if down else None, on_node=True,
            address="10.0.0.1:20001", started_at=self.now, healthy_at=self.now, created_at=self.now,
        )  # fmt: skip

    def _latest(self, n: int) -> LatestSample:
        return LatestSample(
            instance_id=n, app_id=(n - 1) % len(self.apps) + 1, at_us=self.us + 600_000_000, cpu_percent=1.5,
            memory_bytes=40 << 20, memory_limit_bytes=128 << 20, restarts=0, uptime_s=60.0,
        )  # fmt: skip

    def _sample(self, n: int, i: int) -> Sample:
        return Sample(
            instance_id=n, step_s=5, at_us=self.us - i * 5_000_000, app_id=(n - 1) % len(self.apps) + 1,
            cpu_percent=float(self.dice.randint(1, 40)), memory_bytes=self.dice.randint(30, 60) << 20,
        )  # fmt: skip

    def _host(self, n: int, i: int) -> HostSample:
        return HostSample(
            node=f"host-{n:04}-8000", at_us=self.us - i * 5_000_000, step_s=5,
            cpu_percent=float(self.dice.randint(20, 800)),
            memory_used_bytes=30 << 30, memory_total_bytes=64 << 30, disk_free_bytes=1 << 38, load_1m=2.0,
        )  # fmt: skip

    def _event(self, n: int) -> Event:
        app = n % len(self.apps) + 1
        return Event(
            key=n * ORDINALS, at=self.now, epoch=1, claim="seed", member="host-0001-8000", actor="system:controller",
            cause="seed", request_id="-", kind="app.status_changed", object_type="app", object_id=app,
            org_id=self.org.pk, app_id=app, change={"status": ["deploying", "running"]},
        )  # fmt: skip


def _create(model: type[Model], rows: Iterator[Any]) -> None:
    manager: Any = model._default_manager
    manager.bulk_create(rows, batch_size=_BATCH)

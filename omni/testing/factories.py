"""Rows for tests, made without the gate and without their verbs' rules. Each returns the saved row."""

from __future__ import annotations

import itertools
from typing import Any

from accounts import roles, tokens
from accounts.models import ApiToken, Membership, Org
from apps.models import App, ConfigRevision
from consensus import gate
from consensus.models import Fence
from instances.models import CronEntry, CronRun, Deployment, Instance, Node, Task
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.kernel.seal import seal
from releases.models import Artifact, Build, Release
from services.models import Service

_numbers = itertools.count(1)


def _save(row: Any) -> Any:
    with gate.maintenance("test factory"):
        row.save(force_insert=True)
    return row


def make_fence(epoch: int = 1, cluster_id: str = "test") -> Fence:
    with gate.maintenance("test factory"):
        Fence.objects.all().delete()
    fence: Fence = _save(Fence(id=1, cluster_id=cluster_id, epoch=epoch, holder="127.0.0.1-8000"))
    return fence


def make_org(name: str = "", **fields: Any) -> Org:
    now = clock.now()
    row: Org = _save(Org(name=name or f"org-{next(_numbers)}", created_at=now, updated_at=now, **fields))
    return row


def make_user(
    name: str = "", *, org: Org | None = None, role: str = "developer", superuser: bool = False, password: str = ""
) -> Any:
    from django.contrib.auth.hashers import make_password
    from django.contrib.auth.models import User

    known = {"password": make_password(password)} if password else {}
    user = _save(User(username=name or f"user-{next(_numbers)}", is_superuser=superuser, is_staff=superuser, **known))
    if org is not None:
        _save(Membership(org=org, user=user, role=role, created_at=clock.now()))
    return user


def make_token(
    org: Org, *, role: str = "owner", platform: bool = False, scopes: list[str] | None = None, **fields: Any
) -> str:
    """The secret of a new token."""
    new = tokens.mint()
    fields = {"created_at": clock.now(), "created_by": "test", **fields}
    _save(ApiToken(org=org, name="test", prefix=new.prefix, digest=new.digest, role=role, platform=platform,
                   scopes=scopes or [], **fields))  # fmt: skip
    return new.secret


def make_actor(org: Org, *, role: str = "owner", platform: bool = False) -> Actor:
    """An actor with a real token behind it, so that `access.recheck` finds its rights."""
    secret = make_token(org, role=role, platform=platform)
    token = ApiToken.objects.get(digest=tokens.digest(secret))
    return Actor("token", token.pk, "test", org.pk, None, role, roles.scopes_of(role, platform=platform), platform)


def make_app(org: Org | None = None, name: str = "", *, env: dict[str, str] | None = None, **fields: Any) -> App:
    org = org or make_org()
    name = name or f"app-{next(_numbers)}"
    now = clock.now()
    fields.setdefault("hostname", f"{name}-{next(_numbers)}")
    app: App = _save(App(org=org, name=name, created_at=now, updated_at=now, **fields))
    make_config(app, number=1, env=env)
    return app


def make_config(app: App, number: int, env: dict[str, str] | None = None) -> ConfigRevision:
    row: ConfigRevision = _save(
        ConfigRevision(
            app=app, number=number, env=seal(env or {}), memory_mb=app.memory_mb, cpu=app.cpu, cpu_limit=app.cpu_limit,
            health_check=app.health_check, restart_policy=app.restart_policy, stop_timeout_s=app.stop_timeout_s,
            process_settings=app.process_settings,
            created_at=clock.now(), created_by="test",
        )
    )  # fmt: skip
    return row


def make_artifact(kind: str = "upload", sha256: str = "", size: int = 1) -> Artifact:
    row: Artifact = _save(
        Artifact(sha256=sha256 or f"{next(_numbers):064x}", size=size, media_type="application/x-tar", kind=kind,
                 created_at=clock.now())
    )  # fmt: skip
    return row


def make_build(app: App, version: str = "1", **fields: Any) -> Build:
    fields.setdefault("version_key", f"{app.pk}:{version}")
    if "artifact" not in fields:
        fields["artifact"] = make_artifact()
    row: Build = _save(Build(app=app, version=version, created_by="test", created_at=clock.now(), **fields))
    return row


def make_release(
    app: App, version: str = "", number: int | None = None, process_types: dict[str, str] | None = None, **fields: Any
) -> Release:
    number = number or Release.objects.filter(app=app).count() + 1
    version = version or str(number)
    if "build" not in fields:
        fields["build"] = make_build(app, version, status="succeeded", release_number=number)
    fields.setdefault("config", ConfigRevision.objects.filter(app=app).order_by("-number")[0])
    package = fields.pop("package", None) or make_artifact("package")
    row: Release = _save(
        Release(
            app=app, number=number, version=version, artifact=fields["build"].artifact, package=package,
            process_types=process_types or {"web": "./run"}, reason="test", created_by="test", created_at=clock.now(),
            **fields,
        )
    )  # fmt: skip
    return row


def make_node(name: str = "", **fields: Any) -> Node:
    now = clock.now()
    fields = {"status": "ready", "cpu_count": 2, "memory_mb": 4096, **fields}
    row: Node = _save(
        Node(name=name or f"127.0.0.1-{8000 + next(_numbers)}", address="127.0.0.1", status_since=now, created_at=now,
             **fields)
    )  # fmt: skip
    return row


def make_deployment(app: App, release: Release | None = None, **fields: Any) -> Deployment:
    now = clock.now()
    fields = {"kind": "deploy", "serial": app.deploy_serial, "desired_instances": app.instances, **fields}
    row: Deployment = _save(
        Deployment(app=app, release=release, created_by="test", created_at=now, progress_at=now, **fields)
    )
    return row


def make_instance(app: App, release: Release | None = None, node: Node | None = None, **fields: Any) -> Instance:
    release = release or Release.objects.filter(app=app).first() or make_release(app)
    fields = {"slot": 0, "status": "running", "health": "healthy", "memory_mb": 64, "cpu": 0.5, **fields}
    row: Instance = _save(Instance(app=app, release=release, node=node, created_at=clock.now(), **fields))
    return row


def make_service(name: str = "", *, check: dict[str, Any] | None = None, **fields: Any) -> Service:
    now = clock.now()
    columns: dict[str, Any] = {
        "source": "api",
        "interval_s": 10.0,
        "timeout_s": 3.0,
        "healthy_threshold": 2,
        "unhealthy_threshold": 3,
        "start_period_s": 0.0,
        "severity": "critical",
        "state_since": now,
        "defined_at": now,
        "created_at": now,
        "updated_at": now,
        "check_spec": check or {"type": "tcp", "host": "10.0.0.1", "port": 3306},
    }
    row: Service = _save(Service(name=name or f"service-{next(_numbers)}", **(columns | fields)))
    return row


def make_task(app: App, release: Release, *, env: dict[str, str] | None = None, **fields: Any) -> Task:
    now = clock.now()
    fields = {
        "kind": "run",
        "command": "./run",
        "memory_mb": 64,
        "cpu": 0.5,
        "timeout_s": 60.0,
        "start_by": now,
        **fields,
    }
    row: Task = _save(
        Task(app=app, release=release, env=seal(env) if env else "", env_keys=sorted(env or {}), created_by="test",
             created_at=now, **fields)
    )  # fmt: skip
    return row


def make_cron(app: App, task: Task | None = None, *, env: dict[str, str] | None = None, **fields: Any) -> CronEntry:
    """An entry with one run, of `task`."""
    now = clock.now()
    fields = {"name": "tidy", "schedule": "@daily", "command": "./tidy", "timeout_s": 60.0, "start_deadline_s": 60.0,
              **fields}  # fmt: skip
    row: CronEntry = _save(
        CronEntry(app=app, env=seal(env) if env else "", env_keys=sorted(env or {}), created_by="test", created_at=now,
                  updated_at=now, **fields)
    )  # fmt: skip
    _save(CronRun(entry=row, due_at=now, status="started", start_by=now, task=task, created_at=now))
    return row

"""The verbs of tasks: run a command, cancel it, begin a release command.

Each runs inside the gate on rows that it read there. What follows is the runner's: nothing here starts anything.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from django.db.models import F, Sum

from accounts.models import Org
from apps import processes
from apps import services as app_services
from apps.models import App, DesiredState
from consensus.gate import Transaction
from instances import models
from instances.tasks.models import Task
from instances.tasks.states import ACTIVE, TaskStatus
from instances.tasks.steps import START_S
from observing import journal
from omni.kernel.errors import Conflict, FieldError, InvalidInput
from omni.kernel.seal import seal
from releases import services as releases
from releases.models import Release

TIMEOUT_S = 3600.0
MOST_ACTIVE = 50  # of one app


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to run. `command` or, instead of it, the command of a `process_type`; None: as large as web is."""

    command: str = ""
    process_type: str = ""
    env: dict[str, str] = field(default_factory=dict)
    memory_mb: int | None = None
    cpu: float | None = None
    timeout_s: float = TIMEOUT_S
    start_s: float = START_S
    version: str | None = None


def run(tx: Transaction, app: App, wanted: Wanted, *, kind: str = "run") -> Task:
    """A task of the wished release (or of a version). Raises Conflict, InvalidInput, Forbidden (quota)."""
    if app.desired_state == DesiredState.DELETED:
        raise Conflict("The app is being deleted.", code="app_deleting")
    release = _release(app, wanted.version)
    command = wanted.command or _command_of(release, wanted.process_type)
    row = Task(
        app=app, kind=kind, release=release, command=command, env=seal(wanted.env) if wanted.env else "",
        env_keys=sorted(wanted.env), timeout_s=wanted.timeout_s, start_by=tx.at + dt.timedelta(seconds=wanted.start_s),
        memory_mb=wanted.memory_mb or release.config.memory_mb, cpu=wanted.cpu or release.config.cpu,
        created_by=tx.actor.label, created_at=tx.at, reason="waiting for a node", request_id=journal.current(),
    )  # fmt: skip
    _check_room(app, row)
    return _insert(tx, row)


def begin_release_command(tx: Transaction, app: App, deployment: Any) -> Task:
    """The task of a deployment's release command. The caller writes it down on the deployment in the same
    transaction, which is why there is one for each deployment."""
    release = Release.objects.select_related("config").get(pk=deployment.release_id)
    timeout_s = float(deployment.strategy.get("release_timeout_s") or 600.0)
    return _insert(
        tx,
        Task(
            app=app, kind="release", release=release, command=release.process_types[processes.RELEASE],
            timeout_s=timeout_s, start_by=tx.at + dt.timedelta(seconds=START_S), memory_mb=release.config.memory_mb,
            cpu=release.config.cpu, created_by=deployment.created_by, created_at=tx.at, reason="waiting for a node",
            request_id=deployment.request_id,
        ),
    )  # fmt: skip


def cancel(tx: Transaction, app: App, task: Task, *, why: str = "") -> Task:
    """Ask for its end; the same again changes nothing. Raises Conflict when it has ended."""
    if task.status not in ACTIVE:
        raise Conflict(f"The task is {task.status}.", code="task_ended", next=f"GET /app/{app.pk}/tasks/{task.pk}")
    if not task.stop_code:
        changed = Task.objects.filter(pk=task.pk, status__in=ACTIVE, stop_code="")
        if changed.update(stop_code="cancelled", revision=F("revision") + 1) != 1:
            raise Conflict("The task has changed at the same time.", next="repeat the request")
        tx.record("task.cancel_asked", "task", task.pk, org_id=app.org_id, app_id=app.pk,
                  change={"by": tx.actor.label, "why": why[:200]})  # fmt: skip
        task.refresh_from_db()
    return task


def _insert(tx: Transaction, row: Task) -> Task:
    row.save(force_insert=True)
    change = {"kind": row.kind, "release": row.release.number, "timeout_s": row.timeout_s}
    tx.record("task.created", "task", row.pk, org_id=row.app.org_id, app_id=row.app_id, change=change)
    return row


def _release(app: App, version: str | None) -> Release:
    if version is not None:
        return releases.release_for(app, version=version)
    if app.desired_release is None:
        raise Conflict(
            "Nothing is deployed yet: a task runs in a release of the app.", code="nothing_deployed",
            next=f"POST /app/{app.pk}/release/<version>/upload",
        )  # fmt: skip
    return releases.release_for(app, number=app.desired_release)


def _command_of(release: Release, name: str) -> str:
    command = release.process_types.get(name)
    if not command:
        known = ", ".join(sorted(release.process_types))
        said = f"The release has {known}, not {name}."
        raise InvalidInput(errors=[FieldError("/process_type", "no_such_process", said)])
    return str(command)


def _check_room(app: App, row: Task) -> None:
    """So many at a time, and within the org's quota of instances and memory."""
    active = Task.objects.filter(app=app, status__in=ACTIVE).count()
    if active >= MOST_ACTIVE:
        raise Conflict(
            f"{active} tasks of the app are under way, which is the most at a time.", code="too_many_tasks",
            next=f"GET /app/{app.pk}/tasks?status=running",
        )  # fmt: skip
    org = Org.objects.get(pk=app.org_id)
    if org.max_instances is None and org.max_memory_mb is None:
        return
    sums = Task.objects.filter(app__org=org, status__in=ACTIVE).aggregate(memory=Sum("memory_mb"))
    count = Task.objects.filter(app__org=org, status__in=ACTIVE).count()
    memory = app.other_memory_mb + int(sums["memory"] or 0) + row.memory_mb
    app_services.check_quota(org, app, app.instances, app.memory_mb, (app.other_instances + count + 1, memory))


def place(tx: Transaction, task: Task, node: Any, verdict: dict[str, Any], reason: str) -> int:
    """The task's one instance, on that node; returns its id. The unique `Instance.task` refuses a second."""
    row = models.Instance(
        app_id=task.app_id, slot=0, release_id=task.release_id, process_type="task", task=task, node_id=node.id,
        on_node=True, memory_mb=task.memory_mb, cpu=task.cpu, placement=verdict, reason=reason[:300],
        created_at=tx.at, status="placed", request_id=task.request_id,
    )  # fmt: skip
    row.save(force_insert=True)
    org_id = App.objects.values_list("org_id", flat=True).get(pk=task.app_id)
    tx.record("instance.placed", "instance", row.pk, org_id=org_id, app_id=task.app_id,
              change={"task": task.pk, "node": node.name, "why": reason[:200]})  # fmt: skip
    return row.pk


__all__ = ["MOST_ACTIVE", "TIMEOUT_S", "TaskStatus", "Wanted", "begin_release_command", "cancel", "place", "run"]

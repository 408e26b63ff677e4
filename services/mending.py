"""Remedies carried out: begun by a gated claim, done, and its outcome written. Run by the leader, one at a time.

Owns the rows of remedy runs. An effect outside the database follows the committed claim and carries the run's id, so
that a receiver can drop a repetition (DECISIONS 6). A run that nobody ends is failed at its deadline.
"""

from __future__ import annotations

import datetime as dt
import logging
import shlex
from collections.abc import Mapping
from typing import Any

from apps.models import App
from consensus import gate
from consensus.gate import Transaction
from instances import services as instances
from instances.models import Deployment
from instances.states import DeploymentStatus
from instances.tasks import services as tasks
from instances.tasks.models import Task
from instances.tasks.states import ENDED, TaskStatus
from instances.tasks.steps import START_S
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.errors import OmniError, TransitionRefused
from omni.kernel.seal import unseal
from omni.kernel.transitions import move
from omni.outgoing import webhooks
from services.models import Alert, RemedyRun, Service
from services.remedies import Bounds, Patient, why_not
from services.states import LEADER, REMEDY, RemedyStatus

EVERY_S = 2.0
DEADLINE_S = 900.0
AFTER_TASK_S = 120.0  # beyond what the task itself is given to start and to run: it ends it, and that is seen
_HOURS_LOOKED_AT = 24
_ENDED_WELL = frozenset({DeploymentStatus.SUCCEEDED})
_ENDED_BADLY = frozenset({DeploymentStatus.FAILED, DeploymentStatus.CANCELLED, DeploymentStatus.REVERTED})
_log = logging.getLogger("omni.services")


def tick() -> float | None:
    """End what has come to its end, begin what is due. The seconds until time alone may change that (None: never)."""
    running = list(RemedyRun.objects.filter(status=RemedyStatus.RUNNING).select_related("service"))
    for run in running:
        _follow(run)
    ill = list(Service.objects.filter(state="unhealthy", maintenance=False, remedy__isnull=False).order_by("id"))
    for service in ill:
        _consider(service)
    return EVERY_S if running or ill else None


def begin(tx: Transaction, service: Service, why: str) -> RemedyRun:
    """The claim; for an app of this platform the restart or the task itself, in the same transaction."""
    remedy = service.remedy or {}
    run = RemedyRun(
        service=service, active_key=service.pk, type=remedy["type"], reason=why[:300], started_at=tx.at,
        deadline_at=tx.at + dt.timedelta(seconds=deadline_s(remedy)),
    )  # fmt: skip
    run.save(force_insert=True)
    change: dict[str, Any] = {"service": service.name, "type": run.type, "why": why}
    if run.type in ("restart_app", "run_task"):
        refusal = _set_off(tx, run, remedy)
        if refusal:
            return _ended(tx, run, RemedyStatus.FAILED, refusal, change)
        RemedyRun.objects.filter(pk=run.pk).update(deployment_id=run.deployment_id, task_id=run.task_id)
        change |= {name: value for name, value in (("deployment", run.deployment_id), ("task", run.task_id)) if value}
    tx.record("remedy.started", "remedy", run.pk, change=change)
    return run


def deadline_s(remedy: Mapping[str, Any]) -> float:
    if remedy.get("type") == "run_task":
        return START_S + float(remedy["timeout_s"]) + AFTER_TASK_S
    return DEADLINE_S


def _set_off(tx: Transaction, run: RemedyRun, remedy: Mapping[str, Any]) -> str:
    """Restart the app, or run the task in it; why not, if that is refused."""
    app = App.objects.select_related("org").filter(pk=remedy["app"]).first()
    if app is None:
        return "the app is gone"
    try:
        if run.type == "restart_app":
            run.deployment_id = instances.restart(tx, app).pk
        else:
            line = shlex.join(remedy["command"])
            run.task_id = tasks.run(tx, app, tasks.Wanted(command=line, timeout_s=remedy["timeout_s"])).pk
    except OmniError as error:
        return str(error.detail)
    return ""


def end(tx: Transaction, run: RemedyRun, status: RemedyStatus, detail: str) -> None:
    """The outcome, once. Raises TransitionRefused when it has one."""
    _ended(tx, run, status, detail, {"service": run.service.name, "type": run.type})


def _ended(tx: Transaction, run: RemedyRun, status: RemedyStatus, detail: str, change: dict[str, Any]) -> RemedyRun:
    move(RemedyRun, run.pk, table=REMEDY, to=status, owner=LEADER, active_key=None, finished_at=tx.at,
         detail=detail[:300])  # fmt: skip
    tx.record(f"remedy.{status}", "remedy", run.pk, change={**change, "detail": detail})
    run.refresh_from_db()
    return run


def _consider(service: Service) -> None:
    now, remedy = clock.now(), service.remedy or {}
    runs = list(
        RemedyRun.objects.filter(service=service, started_at__gte=now - dt.timedelta(hours=_HOURS_LOOKED_AT))
        .order_by("started_at")
        .values_list("started_at", "finished_at", "status")
    )
    patient = Patient(
        since=service.state_since.timestamp(),
        speaks=Alert.objects.filter(active_key=service.pk).exists(),
        running=any(status == RemedyStatus.RUNNING for _, _, status in runs),
        runs=[started.timestamp() for started, _, _ in runs],
        ended=max((ended.timestamp() for _, ended, _ in runs if ended is not None), default=0.0),
    )
    bounds = Bounds(remedy["after_s"], remedy["backoff_s"], remedy["max_per_hour"])
    if why_not(patient, bounds, now.timestamp()):
        return

    def claim(tx: Transaction) -> RemedyRun | None:
        fresh = Service.objects.filter(pk=service.pk, state="unhealthy", maintenance=False).first()
        if fresh is None or RemedyRun.objects.filter(active_key=service.pk).exists() or _app_is_busy(fresh):
            return None
        return begin(tx, fresh, fresh.detail)

    if _app_is_busy(service):
        return
    run, _ = gate.run(claim, actor=system("services"), cause=f"{service.name} is unhealthy")
    if run is not None and run.status == RemedyStatus.RUNNING and run.type == "webhook":
        _call(service, run)


def _app_is_busy(service: Service) -> bool:
    """Another service's remedy is at work on the same app: never two at once."""
    app = (service.remedy or {}).get("app")
    if app is None:
        return False
    running = RemedyRun.objects.filter(status=RemedyStatus.RUNNING).select_related("service")
    return any((run.service.remedy or {}).get("app") == app for run in running)


def _call(service: Service, run: RemedyRun) -> None:
    """Nobody repeats it: a run that was claimed and not done ends at its deadline, and the next one is another try."""
    secret = str(unseal(service.remedy_secret)) if service.remedy_secret else ""
    data = {"run": run.pk, "service": {"id": service.pk, "name": service.name}, "detail": service.detail}
    message = webhooks.Message(f"remedy-{run.pk}", "remedy.wanted", data)
    outcome = webhooks.deliver(webhooks.Endpoint((service.remedy or {})["url"], secret), message)
    status = RemedyStatus.SUCCEEDED if outcome.delivered else RemedyStatus.FAILED
    _end(run, status, outcome.detail)


def _follow(run: RemedyRun) -> None:
    if run.deployment_id is not None:
        row = Deployment.objects.filter(pk=run.deployment_id).values_list("status", "reason", "error_detail").first()
        if row is None or row[0] in _ENDED_BADLY:
            why = "the deployment is gone" if row is None else f"the restart {row[0]}: {row[2] or row[1]}"
            return _end(run, RemedyStatus.FAILED, why)
        if row[0] in _ENDED_WELL:
            return _end(run, RemedyStatus.SUCCEEDED, f"deployment {run.deployment_id} restarted the app")
    if run.task_id is not None and (ended := _of_task(run.task_id)) is not None:
        return _end(run, *ended)
    if run.deadline_at <= clock.now():
        _end(run, RemedyStatus.FAILED, f"no outcome within {(run.deadline_at - run.started_at).total_seconds():g} s")
    return None


def _of_task(task_id: int) -> tuple[RemedyStatus, str] | None:
    """None: it has not ended yet."""
    task = Task.objects.filter(pk=task_id).values_list("status", "reason").first()
    if task is None:
        return RemedyStatus.FAILED, "the task is gone"
    if task[0] not in ENDED:
        return None
    well = task[0] == TaskStatus.SUCCEEDED
    return (RemedyStatus.SUCCEEDED if well else RemedyStatus.FAILED), f"task {task_id} {task[0]}: {task[1]}"


def _end(run: RemedyRun, status: RemedyStatus, detail: str) -> None:
    try:
        gate.run(lambda tx: end(tx, run, status, detail), actor=system("services"), cause=f"remedy {run.pk}")
    except TransitionRefused:
        _log.info("remedy %d had ended already", run.pk)

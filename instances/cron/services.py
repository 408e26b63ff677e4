"""The verbs of cron entries: make, change, remove, run now; and what the leader does when one is due.

Each runs inside the gate on rows that it read there. Claiming a due time, making its task and setting the next due time
are one transaction: a due time is started once or not at all, whoever leads.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, cast

from django.db import IntegrityError
from django.db.models import F

from apps.models import App, DesiredState
from consensus.gate import Transaction
from instances.cron import due, schedule
from instances.cron.models import CronEntry, CronRun
from instances.tasks import services as tasks
from instances.tasks.models import Task
from instances.tasks.states import ACTIVE
from omni.kernel.errors import Conflict, FieldError, InvalidInput, OmniError
from omni.kernel.seal import seal, unseal

MOST_ENTRIES = 100  # of one app
START_DEADLINE_S = 300.0
DEFAULTS: dict[str, Any] = {
    "time_zone": "UTC", "command": "", "process_type": "", "memory_mb": None, "cpu": None,
    "timeout_s": tasks.TIMEOUT_S, "overlap": "skip", "start_deadline_s": START_DEADLINE_S, "paused": False,
}  # fmt: skip


def create(tx: Transaction, app: App, fields: dict[str, Any]) -> CronEntry:
    """Raises Conflict for a taken name or one too many, InvalidInput for a schedule that cannot be."""
    if app.desired_state == DesiredState.DELETED:
        raise Conflict("The app is being deleted.", code="app_deleting")
    if CronEntry.objects.filter(app=app).count() >= MOST_ENTRIES:
        raise Conflict(f"An app has at most {MOST_ENTRIES} cron entries.", code="too_many_cron_entries")
    row = CronEntry(app=app, name=fields["name"], created_by=tx.actor.label, created_at=tx.at)
    if CronEntry.objects.filter(app=app, name=row.name).exists():
        raise Conflict(f"There is a cron entry named {row.name} already.", code="cron_entry_exists")
    _fill(tx, row, {**DEFAULTS, **fields})
    row.save(force_insert=True)
    _record(tx, row, "cron.created", {"schedule": row.schedule, "time_zone": row.time_zone})
    return row


def update(tx: Transaction, row: CronEntry, fields: dict[str, Any]) -> CronEntry:
    """A changed schedule, or one that is no longer paused, counts from now on."""
    before = row.revision
    _fill(tx, row, fields)
    row.revision = before + 1
    names = ("schedule", "time_zone", "command", "process_type", "env", "env_keys", "memory_mb", "cpu", "timeout_s",
             "overlap", "start_deadline_s", "paused", "next_due_at", "updated_at", "revision")  # fmt: skip
    changed = CronEntry.objects.filter(pk=row.pk, revision=before)
    if changed.update(**{name: getattr(row, name) for name in names}) != 1:
        raise Conflict("The cron entry was changed at the same time.", next="repeat the request")
    _record(tx, row, "cron.updated", {"fields": sorted(fields)})
    return row


def remove(tx: Transaction, row: CronEntry) -> None:
    """With its history. What it started goes on."""
    _record(tx, row, "cron.removed", {})
    CronRun.objects.filter(entry=row).delete()
    row.delete()


def run_now(tx: Transaction, row: CronEntry) -> CronRun:
    """Beside its schedule, under its overlap policy. Raises what `tasks.run` raises."""
    return _begin(tx, row, tx.at, f"asked for by {tx.actor.label}", tx.at + dt.timedelta(seconds=row.start_deadline_s))


def come_due(tx: Transaction, entry_id: int, seen: dt.datetime) -> str | None:
    """What has come due is claimed and begun; None when somebody else did, or it is wanted no longer."""
    row = CronEntry.objects.select_for_update().filter(pk=entry_id, next_due_at=seen, paused=False).first()
    if row is None:
        return None
    row.app = App.objects.select_for_update().get(pk=row.app_id)
    found = due.judge(row.schedule, row.time_zone, seen, tx.at, row.start_deadline_s)
    CronEntry.objects.filter(pk=row.pk).update(next_due_at=found.next_due, revision=F("revision") + 1)
    if found.missed and found.missed_from is not None:
        why = f"nobody was there to start it within {row.start_deadline_s:g} s"
        if found.start is not None:
            why = "a later due time had come as well"
        if not _claimed(row, found.missed_from):
            _claim(tx, row, found.missed_from, "missed", why, missed=found.missed)
    if found.start is None:
        return "missed"
    if _claimed(row, found.start):  # the clock was put back
        _record(tx, row, "cron.claimed_before", {"due_at": found.start.isoformat()})
        return "claimed before"
    try:
        return _begin(tx, row, found.start, "due", found.start + dt.timedelta(seconds=row.start_deadline_s)).status
    except OmniError as refusal:  # nothing deployed, no quota: said in the history, and the schedule goes on
        return _claim(tx, row, found.start, "refused", _said(refusal)).status


def go_on(tx: Transaction, run_id: int) -> str | None:
    """For a run that waits until what it replaces has ended."""
    run = CronRun.objects.select_for_update().select_related("entry").filter(pk=run_id, status="waiting").first()
    if run is None:
        return None
    entry = run.entry
    entry.app = App.objects.select_for_update().get(pk=entry.app_id)
    if tx.at > run.start_by:
        _settle(tx, run, "missed", "what it replaces did not end in time")
    elif not _active(entry):
        try:
            task = _task(tx, entry)
        except OmniError as refusal:
            _settle(tx, run, "refused", _said(refusal))
        else:
            _settle(tx, run, "started", run.reason, task)
    return run.status


def _begin(tx: Transaction, row: CronEntry, at: dt.datetime, why: str, start_by: dt.datetime) -> CronRun:
    """By the overlap policy."""
    if row.app.desired_state != DesiredState.RUNNING:
        return _claim(tx, row, at, "skipped", f"the app is {row.app.desired_state}")
    active = _active(row) if row.overlap != "allow" else []
    if active and row.overlap == "skip":
        return _claim(tx, row, at, "skipped", f"task {active[0].pk} of an earlier due time still runs")
    if active:
        for task in active:
            tasks.cancel(tx, row.app, task, why=f"replaced by the cron entry {row.name}")
        return _claim(tx, row, at, "waiting", f"replaces task {active[0].pk}", start_by=start_by)
    return _claim(tx, row, at, "started", why, task=_task(tx, row))


def _task(tx: Transaction, row: CronEntry) -> Task:
    env = cast(dict[str, str], unseal(row.env)) if row.env else {}
    wanted = tasks.Wanted(row.command, row.process_type, env, row.memory_mb, row.cpu, row.timeout_s)
    return tasks.run(tx, row.app, wanted, kind="cron")


def _said(refusal: OmniError) -> str:
    return "; ".join([str(refusal), *(error.detail for error in refusal.errors)])


def _claimed(row: CronEntry, at: dt.datetime) -> bool:
    return CronRun.objects.filter(entry=row, due_at=at).exists()


def _active(row: CronEntry) -> list[Task]:
    return list(Task.objects.filter(cron_runs__entry=row, status__in=ACTIVE).order_by("id"))


def _claim(
    tx: Transaction, row: CronEntry, at: dt.datetime, status: str, why: str, *, task: Task | None = None,
    missed: int = 0, start_by: dt.datetime | None = None,
) -> CronRun:  # fmt: skip
    run = CronRun(entry=row, due_at=at, status=status, reason=why[:300], missed=missed, start_by=start_by or at,
                  task=task, created_at=tx.at)  # fmt: skip
    try:
        run.save(force_insert=True)
    except IntegrityError:
        raise Conflict("This due time was claimed already.") from None
    _record(tx, row, f"cron.{status}", {"due_at": at.isoformat(), "task": task.pk if task else None, "why": why[:200],
                                        "missed": missed})  # fmt: skip
    return run


def _settle(tx: Transaction, run: CronRun, status: str, why: str, task: Task | None = None) -> None:
    CronRun.objects.filter(pk=run.pk, status="waiting").update(
        status=status, reason=why[:300], task=task, revision=F("revision") + 1
    )
    run.status = status
    _record(tx, run.entry, f"cron.{status}", {"due_at": run.due_at.isoformat(), "task": task.pk if task else None,
                                              "why": why[:200]})  # fmt: skip


def _fill(tx: Transaction, row: CronEntry, fields: dict[str, Any]) -> None:
    """Set what is given, check the whole, and find the next due time where the schedule is another one."""
    timing = {"schedule", "time_zone", "paused"}
    changed = any(name in fields and fields[name] != getattr(row, name) for name in timing)
    for name, value in fields.items():
        if name not in ("env", "name"):
            setattr(row, name, value)
    if fields.get("command"):
        row.process_type = ""
    elif fields.get("process_type"):
        row.command = ""
    if "env" in fields:
        row.env, row.env_keys = (seal(fields["env"]) if fields["env"] else ""), sorted(fields["env"])
    try:
        schedule.check(row.schedule, row.time_zone)
    except schedule.BadSchedule as bad:
        raise InvalidInput(errors=[FieldError("/schedule", "invalid_schedule", str(bad))]) from bad
    if row.paused:
        row.next_due_at = None
    elif changed or row.pk is None:
        row.next_due_at = schedule.first(row.schedule, row.time_zone, tx.at)
    row.updated_at = tx.at


def _record(tx: Transaction, row: CronEntry, kind: str, change: dict[str, Any]) -> None:
    org_id = App.objects.values_list("org_id", flat=True).get(pk=row.app_id)
    tx.record(kind, "cron", row.pk, org_id=org_id, app_id=row.app_id, change={"name": row.name, **change})

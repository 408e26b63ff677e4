"""The leader's loop over tasks: observe → `steps.step` (pure) → one gated transaction a step.

Owns every write of a task's status. Nothing is remembered but when to look again: a leader that dies leaves nothing
behind that the next one does not find in the rows. A release command whose deployment is no longer under way ends.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db.models import F

from apps.models import App, DesiredState
from consensus import fence, gate
from instances import observe
from instances.apply import ask_to_stop
from instances.models import Deployment, Instance
from instances.placement import Pool, need_of
from instances.states import ON_NODE
from instances.tasks import services, steps
from instances.tasks.models import Task
from instances.tasks.states import ACTIVE, ENDED, LEADER, TASK, TaskStatus
from instances.volumes.snapshots.holding import held
from omni.kernel import clock
from omni.kernel.context import on_behalf_of, system
from omni.kernel.errors import Conflict, TransitionRefused
from omni.kernel.transitions import move

EVERY_S = 0.25
_LOOK_AGAIN_S = 5.0  # while something is under way, events or not
_PORTION = 200
_ACTOR = system("tasks")
_log = logging.getLogger("omni.tasks")


@dataclass(slots=True)
class Runner:
    """One per leadership."""

    _index: int = -1
    _look_at: float = 0.0
    _pool: Pool | None = field(default=None)

    def step(self) -> float:
        """`tick`, and the seconds until the next one is due without a write."""
        self.tick()
        return max(self._look_at - clock.monotonic(), 0.0)

    def tick(self) -> int:
        """Look at the tasks under way, when anything was written or a time has come; how many steps were taken."""
        index, now = fence.write_index(), clock.monotonic()
        if index == self._index and now < self._look_at:
            return 0
        self._index, self._pool = index, None
        rows = list(
            Task.objects.filter(status__in=ACTIVE)
            .select_related("app", "instance", "release")
            .order_by("id")[:_PORTION]
        )
        if not rows:
            self._look_at = now + 3600.0
            return 0
        wanted = _wanted_deployments(rows)
        self._look_at, taken = now + _LOOK_AGAIN_S, 0
        for row in rows:
            with on_behalf_of(row.request_id):
                taken += self._look(row, abandoned=row.kind == "release" and row.pk not in wanted)
        if taken:
            self._look_at = now
        return taken

    def _look(self, row: Task, *, abandoned: bool) -> bool:
        """Take the task's next step; True when there was one."""
        at = clock.now()
        gone = abandoned or row.app.desired_state == DesiredState.DELETED
        view = steps.TaskView(row.status, row.start_by, row.stop_by, row.stop_code or ("cancelled" if gone else ""),
                              row.timeout_s)  # fmt: skip
        step = steps.step(view, _seen(row), at)
        if isinstance(step, steps.Wait):
            if step.until is not None:
                self._look_at = min(self._look_at, clock.monotonic() + max((step.until - at).total_seconds(), 0.05))
            return False
        try:
            return self._take(row, view, step)
        except (Conflict, TransitionRefused) as refused:
            _log.debug("task %d changed while it was looked at: %r", row.pk, refused)
            return False

    def _take(self, row: Task, view: steps.TaskView, step: steps.Step) -> bool:
        if isinstance(step, steps.Place):
            return self._place(row)
        gate.run(lambda tx: _carry_out(tx, row, view, step), actor=_ACTOR, cause=f"task {row.pk}: {_why(step)}"[:200])
        _log.info("task %d of app %d: %s", row.pk, row.app_id, _why(step))
        return True

    def _place(self, row: Task) -> bool:
        if self._pool is None:
            self._pool = Pool(observe.node_views())
        app = row.app
        overcommit = settings.CONFIG.limits.cpu_overcommit
        waiting = held([app.pk] if app.volume_node else []).get(app.pk, "")
        need = need_of(app.placement, row.memory_mb, row.cpu, app.runtime, overcommit, app.volume_node, waiting)
        choice = self._pool.choose(need, {})
        node = choice.node
        if node is None:
            if row.reason == choice.reason[:300]:
                return False

            def explain(tx: gate.Transaction) -> None:
                changed = Task.objects.filter(pk=row.pk, status=TaskStatus.QUEUED)
                changed.update(reason=choice.reason[:300], revision=F("revision") + 1)
                _record(tx, row, "task.left_queued", {"why": choice.reason[:200]})

            gate.run(explain, actor=_ACTOR, cause=f"task {row.pk}: no room"[:200])
            return False

        def verb(tx: gate.Transaction) -> None:
            if node.id not in observe.ready_nodes():
                raise Conflict("The node has gone meanwhile.")
            if not App.objects.filter(pk=app.pk, volume_node=app.volume_node).exists():
                raise Conflict("The app's volumes have changed meanwhile.")
            if app.volume_node and held([app.pk]):
                raise Conflict("The app's volumes have to be still.")
            if row.kind == "release" and not _wanted_deployments([row]):
                raise Conflict("Its deployment is over.")
            move(Task, row.pk, table=TASK, to=TaskStatus.PLACED, owner=LEADER, source=TaskStatus.QUEUED,
                 match={"stop_code": ""}, node_name=node.name, reason=f"placed on {node.name}")  # fmt: skip
            instance_id = services.place(tx, row, node, choice.to_json(), choice.reason)
            Task.objects.filter(pk=row.pk).update(instance_number=instance_id)
            _record(tx, row, "task.placed", {"node": node.name, "instance": instance_id})

        gate.run(verb, actor=_ACTOR, cause=f"task {row.pk}: a node for it")
        self._pool.take(node.id, row.memory_mb, row.cpu)
        _log.info("task %d of app %d: placed on %s", row.pk, row.app_id, node.name)
        return True


def _carry_out(tx: gate.Transaction, row: Task, view: steps.TaskView, step: steps.Step) -> None:
    if isinstance(step, steps.Run):
        move(Task, row.pk, table=TASK, to=TaskStatus.RUNNING, owner=LEADER, source=row.status, started_at=tx.at,
             stop_by=tx.at + dt.timedelta(seconds=row.timeout_s), reason=step.why)  # fmt: skip
        _record(tx, row, "task.running", {"node": row.node_name})
    elif isinstance(step, steps.Stop):
        move(Task, row.pk, table=TASK, to=TaskStatus.STOPPING, owner=LEADER, source=row.status, stop_code=step.code,
             reason=step.why[:300])  # fmt: skip
        ask_to_stop(row.instance.pk, step.why)
        tx.record("instance.stop_asked", "instance", row.instance.pk, org_id=row.app.org_id, app_id=row.app_id,
                  change={"why": step.why[:200]})  # fmt: skip
        _record(tx, row, "task.stopping", {"code": step.code, "why": step.why[:200]})
    elif isinstance(step, steps.End):
        _end(tx, row, view, step)


def _end(tx: gate.Transaction, row: Task, view: steps.TaskView, step: steps.End) -> None:
    move(
        Task, row.pk, table=TASK, to=step.status, owner=LEADER, source=row.status, finished_at=tx.at,
        reason=step.why[:300], error_code=step.error_code[:64], exit_code=step.exit_code, exit_signal=step.exit_signal,
        evidence=dict(step.evidence), stop_code=view.stop_code, started_at=row.started_at or _begun_at(row),
    )  # fmt: skip
    Instance.objects.filter(task=row).update(desired="remove", revision=F("revision") + 1)
    change = {"status": [row.status, step.status], "exit_code": step.exit_code, "why": step.why[:200], "kind": row.kind}
    _record(tx, row, f"task.{step.status}", change)


def _begun_at(row: Task) -> dt.datetime | None:
    """Of a task that had ended before it was seen to run: what its agent said."""
    instance: Instance | None = getattr(row, "instance", None)
    return instance.started_at if instance is not None else None


def _seen(row: Task) -> steps.Seen | None:
    instance: Instance | None = getattr(row, "instance", None)
    if instance is None:
        return None
    return steps.Seen(
        instance.status, instance.desired, instance.detail, instance.last_exit, begun=instance.started_at is not None
    )


def _wanted_deployments(rows: list[Task]) -> set[int]:
    """Of the release commands among these, those whose deployment still waits for them. One query."""
    ids = [row.pk for row in rows if row.kind == "release"]
    if not ids:
        return set()
    found = Deployment.objects.filter(release_task__in=ids, status="pending", active_key__isnull=False)
    return set(found.values_list("release_task_id", flat=True))


def _record(tx: gate.Transaction, row: Task, kind: str, change: dict[str, Any]) -> None:
    tx.record(kind, "task", row.pk, org_id=row.app.org_id, app_id=row.app_id, change=change)


def _why(step: steps.Step) -> str:
    return getattr(step, "why", "")


def live_instances(app_id: int) -> bool:
    """Whether an instance of a task of the app still stands on a node."""
    return Instance.objects.filter(app_id=app_id, task__isnull=False, status__in=ON_NODE).exists()


def forget_ended(before: dt.datetime, batch: int) -> int:
    """One batch of tasks that ended before that moment and whose instances are gone; how many."""
    rows = Task.objects.filter(status__in=ENDED, finished_at__lt=before, instance__isnull=True)
    ids = list(rows.order_by("id").values_list("id", flat=True)[:batch])
    if not ids:
        return 0

    def verb(tx: gate.Transaction) -> None:
        Task.objects.filter(pk__in=ids).delete()
        tx.record("tasks.forgotten", "platform", 0, change={"count": len(ids)})

    gate.run(verb, actor=_ACTOR, cause="their logs are no longer kept")
    return len(ids)

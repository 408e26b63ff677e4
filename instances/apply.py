"""Carries one app's plan out, inside the gate, if everything is still as it was when the plan was made.

Owns every leader-side write to deployments and instances that a plan causes. A plan that no longer fits is refused
whole (`ObservedElsewise`): the controller looks again. Any prefix of a plan may be applied.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db.models import F

from apps import services as app_services
from apps.models import App
from consensus.gate import Transaction
from instances import evidence, ledger, observe
from instances.models import Deployment, Instance
from instances.observe import Seen
from instances.plan import actions as act
from instances.states import DEPLOYMENT, INSTANCE, LEADER, DeploymentStatus, InstanceStatus
from instances.tasks import services as tasks
from instances.telemetry import compare, logs
from observing import journal
from omni.kernel.clock import rfc3339
from omni.kernel.transitions import move
from releases.models import Release

MOST_ACTIONS = 500  # of one transaction; the next tick goes on
STEPS_KEPT = 200
_TOLD = (
    act.Prepare, act.Place, act.Assign, act.Stop, act.Progress, act.Bake, act.Promote, act.Shift, act.Finish,
    act.FailDeployment, act.Revert, act.GiveUp,
)  # fmt: skip


class ObservedElsewise(Exception):
    """Something that the plan was made from has changed; nothing was done."""


def apply(tx: Transaction, seen: Seen, plan: act.Plan) -> None:
    """All of the plan or, for a very long one, its first actions."""
    app = App.objects.select_for_update().filter(pk=seen.app_id).first()
    if app is None or app.revision != seen.app_revision:
        raise ObservedElsewise
    deployment = Deployment.objects.select_for_update().filter(app=app).order_by("-id").first()
    if (deployment.revision if deployment else None) != seen.deployment_revision:
        raise ObservedElsewise
    rows = (
        Instance.objects.select_for_update()
        .filter(app=app, desired__in=("run", "stop"), task__isnull=True)
        .order_by("id")
    )
    instances = {row.pk: row for row in rows}
    if {pk: row.revision for pk, row in instances.items()} != seen.instance_revisions:
        raise ObservedElsewise
    _check_nodes(plan)
    _Applying(tx, seen, app, deployment, instances).run(plan)


def _check_nodes(plan: act.Plan) -> None:
    wanted = {a.choice.node.id for a in plan.actions if isinstance(a, (act.Place, act.Assign)) and a.choice.node}
    if wanted and not wanted <= observe.ready_nodes():
        raise ObservedElsewise


class _Applying:
    """One application of one plan: the rows it was checked against, and what the deployment's record will say."""

    def __init__(
        self, tx: Transaction, seen: Seen, app: App, deployment: Deployment | None, instances: dict[int, Instance]
    ) -> None:
        self.tx = tx
        self.seen = seen
        self.app = app
        self.deployment = deployment
        self.instances = instances
        self.steps: list[dict[str, Any]] = []

    def run(self, plan: act.Plan) -> None:
        for action in plan.actions[:MOST_ACTIONS]:
            instance_id = self._carry_out(action)
            if isinstance(action, _TOLD):
                self._step(type(action).__name__.lower(), action.why, instance_id)
        if self.steps and self.deployment is not None:
            row = Deployment.objects.get(pk=self.deployment.pk)
            Deployment.objects.filter(pk=row.pk).update(
                steps=(row.steps + self.steps)[-STEPS_KEPT:], revision=F("revision") + 1
            )
        if len(plan.actions) <= MOST_ACTIONS:
            app_services.set_status(self.tx, self.app, plan.status)

    def _carry_out(self, action: act.Action) -> int | None:
        match action:
            case act.Place():
                return self._place(action)
            case act.Assign():
                return self._assign(action)
            case act.Explain():
                return self._explain(action)
            case act.Stop():
                return self._stop(action)
            case act.Forget():
                return self._forget(action.instance, action.why)
            case act.Purge():
                return None  # the rows go in batches of their own: `instances.purge`
            case _:
                return self._advance(action)

    # -- instances

    def _place(self, action: act.Place) -> int:
        node = action.choice.node
        row = Instance(
            app=self.app, slot=action.slot, release_id=action.release.id, deployment=self.deployment,
            process_type=action.process_type, node_id=node.id if node else None, on_node=node is not None,
            memory_mb=action.size.memory_mb, cpu=action.size.cpu, attempt=action.attempt,
            placement=action.choice.to_json(), request_id=journal.current(),
            reason=(action.why if node else action.choice.reason)[:300], created_at=self.tx.at,
            status=InstanceStatus.PLACED if node else InstanceStatus.PENDING,
            history=[evidence.entry(self.tx.at, "placed" if node else "pending", "unknown", action.choice.reason)],
        )  # fmt: skip
        row.save(force_insert=True)
        kind = "instance.placed" if node else "instance.left_pending"
        self._record(
            kind, row.pk,
            {"process_type": row.process_type, "slot": row.slot, "release": action.release.number,
             "why": action.why[:200], "node": node.name if node else None},
        )  # fmt: skip
        for replaced in action.replaces:
            self._forget(replaced, f"replaced by instance {row.pk}")
        return row.pk

    def _assign(self, action: act.Assign) -> int:
        row, node = self.instances[action.instance], action.choice.node
        assert node is not None  # noqa: S101 - an Assign has a node
        history = evidence.appended(row.history, self.tx.at, "placed", "unknown", action.choice.reason)
        move(
            Instance, row.pk, table=INSTANCE, to=InstanceStatus.PLACED, owner=LEADER, source=InstanceStatus.PENDING,
            node_id=node.id, on_node=True, placement=action.choice.to_json(), reason=action.why[:300], history=history,
        )  # fmt: skip
        self._record("instance.placed", row.pk, {"slot": row.slot, "node": node.name, "why": action.why[:200]})
        return row.pk

    def _explain(self, action: act.Explain) -> int:
        Instance.objects.filter(pk=action.instance, status=InstanceStatus.PENDING).update(
            reason=action.why[:300], placement=action.choice.to_json(), revision=F("revision") + 1
        )
        self._record("instance.left_pending", action.instance, {"why": action.why[:200]})
        return action.instance

    def _stop(self, action: act.Stop) -> int:
        row = self.instances[action.instance]
        if row.status == InstanceStatus.PENDING:
            history = evidence.appended(row.history, self.tx.at, "stopped", "unknown", action.why)
            move(
                Instance, row.pk, table=INSTANCE, to=InstanceStatus.STOPPED, owner=LEADER,
                source=InstanceStatus.PENDING, desired="remove", reason=action.why[:300], finished_at=self.tx.at,
                history=history,
            )  # fmt: skip
        else:
            ask_to_stop(row.pk, action.why)
        self._record("instance.stop_asked", row.pk, {"slot": row.slot, "why": action.why[:200]})
        return row.pk

    def _forget(self, instance_id: int, why: str) -> int:
        Instance.objects.filter(pk=instance_id).update(desired="remove", revision=F("revision") + 1)
        self._record("instance.dealt_with", instance_id, {"why": why[:200]})
        return instance_id

    # -- the deployment

    def _advance(self, action: act.Action) -> int | None:
        assert self.deployment is not None  # noqa: S101 - such actions name one
        match action:
            case act.Prepare():
                task = tasks.begin_release_command(self.tx, self.app, self.deployment)
                Deployment.objects.filter(pk=self.deployment.pk).update(
                    release_task=task, revision=F("revision") + 1
                )  # fmt: skip
                self.tx.record("deployment.preparing", "deployment", self.deployment.pk, org_id=self.app.org_id,
                               app_id=self.app.pk, change={"task": task.pk})  # fmt: skip
            case act.Begin():
                self._move(DeploymentStatus.ROLLING, "deployment.started", reason=action.why[:300],
                           progress_at=self.tx.at)  # fmt: skip
            case act.Progress():
                Deployment.objects.filter(pk=self.deployment.pk).update(
                    progress=action.measure, progress_at=self.tx.at, revision=F("revision") + 1
                )
                self.tx.record("deployment.progressed", "deployment", self.deployment.pk, org_id=self.app.org_id,
                               app_id=self.app.pk, change={"serving": action.why})  # fmt: skip
            case act.Bake():
                self._phase("deployment.baking", action.why, baking_since=self.tx.at, new_percent=action.percent)
            case act.Promote():
                self._phase("deployment.promoted", action.why, promoted_at=self.tx.at, new_percent=action.percent,
                            comparison=self._comparison())  # fmt: skip
            case act.Shift():
                self._phase("deployment.requests_shifted", action.why, new_percent=action.percent,
                            warm_until=action.warm_until)  # fmt: skip
            case act.FailDeployment():
                return self._fail(action)
            case act.Revert():
                self._revert(action)
            case act.GiveUp():
                self._end(DeploymentStatus.REVERTED, "deployment.revert_given_up", action.why)
            case act.Finish():
                reverting = self._status() == DeploymentStatus.REVERTING
                to = DeploymentStatus.REVERTED if reverting else DeploymentStatus.SUCCEEDED
                self._end(to, f"deployment.{to}", action.why)
        return None

    def _fail(self, action: act.FailDeployment) -> int | None:
        shown: dict[str, Any] = {}
        row = self.instances.get(action.instance) if action.instance is not None else None
        if row is None and action.instance is not None:  # of a release command
            row = Instance.objects.filter(pk=action.instance, app=self.app).first()
        if row is not None:
            shown = evidence.of_instance(row, logs.last_lines(row.pk))
        self._move(
            DeploymentStatus.FAILED, "deployment.failed", error_code=action.code, error_detail=action.why[:2000],
            evidence=shown, active_key=None, comparison=self._comparison(), **self._finished(),
        )  # fmt: skip
        return action.instance

    def _revert(self, action: act.Revert) -> None:
        """The release that ran before is what is wished for again, with its configuration."""
        release = Release.objects.select_related("config").get(pk=action.release.id)
        app_services.restore_configuration(self.tx, self.app, release.config)
        app_services.wish(self.tx, self.app, release_number=release.number, process_types=release.process_types,
                          kind="revert", cause=action.why)  # fmt: skip
        self._move(
            DeploymentStatus.REVERTING, "deployment.reverting", active_key=self.app.pk, serial=self.app.deploy_serial,
            progress=None, progress_at=self.tx.at, finished_at=None, ledger_due_at=None, paused_at=None,
            new_percent=action.percent,
        )  # fmt: skip

    def _end(self, to: DeploymentStatus, kind: str, why: str) -> None:
        self._move(to, kind, active_key=None, reason=why[:300], paused_at=None, **self._finished())

    def _phase(self, kind: str, why: str, **fields: Any) -> None:
        """A step on the way; the deadline starts anew."""
        assert self.deployment is not None  # noqa: S101
        Deployment.objects.filter(pk=self.deployment.pk).update(
            progress=None, progress_at=self.tx.at, revision=F("revision") + 1, **fields
        )
        change = {"why": why[:200], "percent_to_new": fields.get("new_percent")}
        self.tx.record(kind, "deployment", self.deployment.pk, org_id=self.app.org_id, app_id=self.app.pk,
                       change=change)  # fmt: skip

    def _finished(self) -> dict[str, Any]:
        return {"finished_at": self.tx.at, "ledger_due_at": ledger.due(self.tx.at)}

    def _comparison(self) -> dict[str, Any]:
        """What both sides of a canary had answered when it was decided."""
        compared = self.seen.desired.deployment.compared if self.seen.desired.deployment is not None else None
        return compare.shown(compared) if compared is not None else {}

    def _move(self, to: DeploymentStatus, kind: str, **fields: Any) -> None:
        assert self.deployment is not None  # noqa: S101
        before = move(Deployment, self.deployment.pk, table=DEPLOYMENT, to=to, owner=LEADER, **fields)
        change = {"status": [before, str(to)], "kind": self.deployment.kind}
        change |= {name: fields[name] for name in ("error_code", "error_detail", "reason") if name in fields}
        self.tx.record(kind, "deployment", self.deployment.pk, org_id=self.app.org_id, app_id=self.app.pk,
                       change=change)  # fmt: skip

    def _status(self) -> str:
        assert self.deployment is not None  # noqa: S101
        return Deployment.objects.values_list("status", flat=True).get(pk=self.deployment.pk)

    def _step(self, what: str, reason: str, instance_id: int | None) -> None:
        at = self.tx.at if isinstance(self.tx.at, dt.datetime) else None
        self.steps.append({"at": rfc3339(at), "what": what, "reason": reason[:300], "instance_id": instance_id})

    def _record(self, kind: str, instance_id: int, change: dict[str, Any]) -> None:
        self.tx.record(kind, "instance", instance_id, org_id=self.app.org_id, app_id=self.app.pk, change=change)


def ask_to_stop(instance_id: int, why: str) -> bool:
    """The one writer of `desired = stop`; False when it was no longer wanted anyway."""
    return bool(
        Instance.objects.filter(pk=instance_id, desired="run").update(
            desired="stop", reason=why[:300], request_id=journal.current(), revision=F("revision") + 1
        )
    )

"""`/app/<app>/cron…`. Views validate, call one verb, answer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from apps.access import app as find_app
from apps.fields import check_name, refuse
from consensus.gate import Transaction
from instances.cron import schedule, services
from instances.cron.models import CronEntry, CronRun
from instances.tasks.api import TaskFields
from omni.kernel import clock
from omni.kernel.clock import rfc3339
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound
from omni.rest.paging import page
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform

_SHOWN_AHEAD = 5


class CronFields(TaskFields):
    """Every writable field of a cron entry, all optional: the body of PATCH."""

    schedule = serializers.CharField(max_length=120, required=False)
    time_zone = serializers.CharField(max_length=64, required=False)
    overlap = serializers.ChoiceField(choices=["skip", "allow", "replace"], required=False)
    start_deadline_s = serializers.FloatField(min_value=1, max_value=7 * 86400, required=False)
    paused = serializers.BooleanField(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("command") and attrs.get("process_type"):
            raise refuse("required", "Either command or process_type is wanted.", "command")
        return attrs


class CreateCronFields(CronFields):
    """The body of POST /app/<app>/cron."""

    name = serializers.CharField(max_length=63)
    schedule = serializers.CharField(max_length=120)

    def validate_name(self, value: str) -> str:
        return check_name(value)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return TaskFields.validate(self, attrs)


class CronViewSet(ViewSet):
    scopes = {"list": "tasks:read", "retrieve": "tasks:read", "runs": "tasks:read", "create": "tasks:write",
              "partial_update": "tasks:write", "destroy": "tasks:write", "run": "tasks:write"}  # fmt: skip

    @extend_schema(operation_id="cron_list", responses={200: dict})
    def list(self, request: Request, app: str) -> Response:
        rows = CronEntry.objects.filter(app_id=find_app(actor_of(request), app).pk)
        return page(request, rows, lambda items: [show(row) for row in items])

    @extend_schema(operation_id="cron_create", request=CreateCronFields, responses={201: dict})
    def create(self, request: Request, app: str) -> Response:
        fields = CreateCronFields.read(request.data)

        def verb(tx: Transaction) -> Reply:
            found = find_app(tx.actor, app, lock=True)
            recheck(tx.actor, "tasks:write", found.org_id)
            row = services.create(tx, found, fields)
            shown = show(row)
            return Reply(shown, 201, row.revision, shown["links"]["self"], {"actions": [], "due": shown["upcoming"]})

        return perform(request, verb)

    @extend_schema(operation_id="cron_retrieve", responses={200: dict})
    def retrieve(self, request: Request, app: str, name: str) -> Response:
        row = find_entry(actor_of(request), app, name)
        return Response(show(row), headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="cron_update", request=CronFields, responses={200: dict})
    def partial_update(self, request: Request, app: str, name: str) -> Response:
        fields = CronFields.read(request.data)

        def act(tx: Transaction, row: CronEntry) -> Reply:
            shown = show(services.update(tx, row, fields))
            return Reply(shown, 200, row.revision, "", {"actions": [], "due": shown["upcoming"]})

        return self._change(request, app, name, act)

    @extend_schema(operation_id="cron_delete", responses={204: None})
    def destroy(self, request: Request, app: str, name: str) -> Response:
        """With its history; what it started goes on."""
        no_body(request)

        def act(tx: Transaction, row: CronEntry) -> Reply:
            services.remove(tx, row)
            return Reply(None, 204)

        return self._change(request, app, name, act)

    @extend_schema(operation_id="cron_runs", responses={200: dict})
    def runs(self, request: Request, app: str, name: str) -> Response:
        """The history, newest first."""
        row = find_entry(actor_of(request), app, name)
        rows = CronRun.objects.filter(entry=row).select_related("task")
        return page(request, rows, lambda items: [show_run(row.app_id, run) for run in items])

    @extend_schema(operation_id="cron_run", request=None, responses={202: dict})
    def run(self, request: Request, app: str, name: str) -> Response:
        """Now, beside the schedule, under the overlap policy."""
        no_body(request)

        def act(tx: Transaction, row: CronEntry) -> Reply:
            run = services.run_now(tx, row)
            shown = show_run(row.app_id, run)
            return Reply(shown, 202, None, shown["links"].get("task") or f"/app/{row.app_id}/cron/{row.name}/runs")

        return self._change(request, app, name, act)

    def _change(
        self, request: Request, app: str, name: str, act: Callable[[Transaction, CronEntry], Reply]
    ) -> Response:  # fmt: skip
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            row = find_entry(tx.actor, app, name, lock=True)
            recheck(tx.actor, "tasks:write", row.app.org_id)
            check_revision(row.revision, expected)
            return act(tx, row)

        return perform(request, verb)


def find_entry(actor: Actor, app_ref: str, name: str, *, lock: bool = False) -> CronEntry:
    """An entry of that very app, by name. Raises NotFound."""
    app = find_app(actor, app_ref, lock=lock)
    rows = CronEntry.objects.select_for_update() if lock else CronEntry.objects.all()
    found = rows.filter(app=app, name=name).first()
    if found is None:
        raise NotFound("There is no such cron entry.", next=f"GET /app/{app.pk}/cron")
    found.app = app
    return found


def show(row: CronEntry) -> dict[str, Any]:
    """`row` and when it is due next."""
    base = f"/app/{row.app_id}/cron/{row.name}"
    ahead = [] if row.paused else islice(schedule.upcoming(row.schedule, row.time_zone, clock.now()), _SHOWN_AHEAD)
    return {
        "id": row.pk,
        "app_id": row.app_id,
        "name": row.name,
        "schedule": row.schedule,
        "time_zone": row.time_zone,
        "command": row.command or None,
        "process_type": row.process_type or None,
        "env_keys": row.env_keys,
        "memory_mb": row.memory_mb,
        "cpu": row.cpu,
        "timeout_s": row.timeout_s,
        "overlap": row.overlap,
        "start_deadline_s": row.start_deadline_s,
        "paused": row.paused,
        "next_due_at": rfc3339(row.next_due_at),
        "upcoming": [rfc3339(at) for at in ahead],
        "created_by": row.created_by,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
        "revision": row.revision,
        "links": {"self": base, "runs": f"{base}/runs", "run": f"{base}/run", "app": f"/app/{row.app_id}/info"},
    }


def show_run(app_id: int, run: CronRun) -> dict[str, Any]:
    """`run` with its task, as far as that is still known."""
    task = run.task
    links = {"task": f"/app/{app_id}/tasks/{task.pk}", "logs": f"/app/{app_id}/tasks/{task.pk}/logs"} if task else {}
    return {
        "id": run.pk,
        "due_at": rfc3339(run.due_at),
        "status": run.status,
        "reason": run.reason,
        "missed": run.missed,
        "task_id": task.pk if task else None,
        "task_status": task.status if task else None,
        "exit_code": task.exit_code if task else None,
        "created_at": rfc3339(run.created_at),
        "links": links,
    }

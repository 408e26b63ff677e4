"""`/app/<app>/run` and `/app/<app>/tasks…`. Views validate, call one verb, answer."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from apps import processes
from apps.access import app as find_app
from apps.fields import EnvField, refuse
from apps.models import App
from consensus.gate import Transaction
from instances import log_queries, observe
from instances.api import LOG_PARAMETERS
from instances.placement import Pool, need_of
from instances.tasks import representation, services
from instances.tasks.models import Task
from instances.tasks.states import ENDED, TaskStatus
from instances.volumes.snapshots.holding import held
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound
from omni.rest.fields import StrictSerializer
from omni.rest.paging import STREAM, page, refused
from omni.rest.paging import answer as paging_answer
from omni.rest.permissions import actor_of
from omni.rest.writes import Reply, check_revision, etag, expected_revision, no_body, perform


class PlainEnvField(EnvField):
    """Names and plain values, over those of the release."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        found = super().to_internal_value(data)
        if any(not isinstance(value, str) for value in found.values()):
            raise refuse("invalid", "A task's variables are plain text; they are sealed, and never shown.")
        return found


class TaskFields(StrictSerializer):
    """What every command that runs once takes. `command` is a line for `/bin/sh -c` in the release's tree."""

    command = serializers.CharField(max_length=4096, required=False)
    process_type = serializers.CharField(max_length=32, required=False)
    env = PlainEnvField(required=False)
    memory_mb = serializers.IntegerField(min_value=4, max_value=1_048_576, required=False)
    cpu = serializers.FloatField(min_value=0.01, max_value=1024, required=False)
    timeout_s = serializers.FloatField(min_value=1, max_value=7 * 86400, required=False)

    def validate_command(self, value: str) -> str:
        if "\0" in value or "\n" in value:
            raise refuse("invalid", "One line is wanted.")
        return value

    def validate_process_type(self, value: str) -> str:
        if not processes.NAME.fullmatch(value):
            raise refuse("invalid_name", "No Procfile names such a process.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if bool(attrs.get("command")) == bool(attrs.get("process_type")):
            raise refuse("required", "Either command or process_type is wanted.", "command")
        return attrs


class RunFields(TaskFields):
    """The body of POST /app/<app>/run; `version`: of which release, default the one that is deployed."""

    version = serializers.CharField(max_length=64, required=False)


class TaskViewSet(ViewSet):
    scopes = {"run": "tasks:write", "cancel": "tasks:write", "list": "tasks:read", "retrieve": "tasks:read",
              "logs": "logs:read"}  # fmt: skip

    @extend_schema(operation_id="app_run", request=RunFields, responses={202: dict})
    def run(self, request: Request, app: str) -> Response:
        """A command in an instance of its own, once; the answer is its task."""
        fields = RunFields.read(request.data)

        def verb(tx: Transaction) -> Reply:
            found = find_app(tx.actor, app, lock=True)
            recheck(tx.actor, "tasks:write", found.org_id)
            row = services.run(tx, found, services.Wanted(**fields))
            shown = representation.task(row)
            return Reply(shown, 202, row.revision, shown["links"]["self"], _plan(found, row) if tx.rehearsal else None)

        return perform(request, verb)

    @extend_schema(
        operation_id="tasks_list",
        parameters=[OpenApiParameter("status", str, description="comma-separated"),
                    OpenApiParameter("kind", str, enum=["run", "release", "cron"])],
        responses={200: dict},
    )  # fmt: skip
    def list(self, request: Request, app: str) -> Response:
        rows = Task.objects.filter(app_id=find_app(actor_of(request), app).pk).select_related("release")
        if status := request.query_params.get("status"):
            wanted = status.split(",")
            if unknown := [part for part in wanted if part not in TaskStatus.values]:
                raise refused("status", f"{unknown[0]} is none of {', '.join(TaskStatus.values)}.")
            rows = rows.filter(status__in=wanted)
        if kind := request.query_params.get("kind"):
            rows = rows.filter(kind=kind)
        return page(request, rows, lambda items: [representation.task(row) for row in items])

    @extend_schema(operation_id="task_retrieve", responses={200: dict})
    def retrieve(self, request: Request, app: str, task_id: int) -> Response:
        row = find_task(actor_of(request), app, task_id)
        return Response(representation.task(row), headers={"ETag": etag(row.revision)})

    @extend_schema(operation_id="task_logs", parameters=LOG_PARAMETERS, responses={200: dict})
    def logs(self, request: Request, app: str, task_id: int) -> Response:
        """What it wrote; as an event stream until its end."""
        row = find_task(actor_of(request), app, task_id)
        if row.instance_number is None:
            answer = paging_answer(request, [], next_cursor=None, previous_cursor=None)
        else:
            answer = log_queries.page(request, row.app_id, row.instance_number)
            answer.headers.pop(STREAM, None)  # each follower reads for itself: it has to see the end
        answer.data["ended"] = _log_end(row)
        return answer

    @extend_schema(operation_id="task_cancel", request=None, responses={202: dict})
    def cancel(self, request: Request, app: str, task_id: int) -> Response:
        """SIGTERM to its process, SIGKILL after the app's `stop_timeout_s`."""
        no_body(request)
        expected = expected_revision(request)

        def verb(tx: Transaction) -> Reply:
            row = find_task(tx.actor, app, task_id)
            recheck(tx.actor, "tasks:write", row.app.org_id)
            check_revision(row.revision, expected)
            shown = representation.task(services.cancel(tx, row.app, row))
            return Reply(shown, 202, shown["revision"], shown["links"]["self"])

        return perform(request, verb)


def find_task(actor: Actor, app_ref: str, task_id: int) -> Task:
    """A task of that very app. Raises NotFound."""
    app = find_app(actor, app_ref)
    found = Task.objects.select_related("release", "instance").filter(pk=task_id, app=app).first()
    if found is None:
        raise NotFound("There is no such task.", next=f"GET /app/{app.pk}/tasks")
    found.app = app
    return found


def _log_end(row: Task) -> str | None:
    """How it ended, once nothing of its log is on its way any more: its agent has shipped all before it let go."""
    if row.status not in ENDED:
        return None
    instance = getattr(row, "instance", None)
    return row.status if instance is None or not instance.on_node or row.status == TaskStatus.LOST else None


def _plan(app: App, row: Task) -> dict[str, Any]:
    """Where it would run now."""
    overcommit = settings.CONFIG.limits.cpu_overcommit
    waiting = held([app.pk] if app.volume_node else []).get(app.pk, "")
    need = need_of(app.placement, row.memory_mb, row.cpu, app.runtime, overcommit, app.volume_node, waiting)
    choice = Pool(observe.node_views()).choose(need, {})
    node = choice.node.name if choice.node else None
    return {"actions": [{"action": "run", "node": node, "why": choice.reason, "placement": choice.to_json()}]}

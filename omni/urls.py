"""The whole URL map on one page. No trailing slashes; `<app>` is an id or a name."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from accounts.api import OrgViewSet, TokenViewSet
from accounts.api_hooks import EventHookViewSet
from accounts.api_me import MeViewSet
from instances.api import InstanceViewSet
from instances.api_agent import AgentViewSet
from instances.api_deployments import DeploymentViewSet
from instances.api_nodes import NodeViewSet
from instances.cron.api import CronViewSet
from instances.exec.api import ExecViewSet
from instances.tasks.api import TaskViewSet
from instances.volumes.api import VolumeViewSet
from instances.volumes.snapshots.api import RestoreViewSet, SnapshotViewSet
from instances.volumes.snapshots.api_agent import SnapshotArchiveViewSet
from omni.api import documents
from omni.api.apps import AppViewSet
from omni.api.cluster import ClusterViewSet
from omni.api.events import EventViewSet
from omni.api.metrics import MetricsViewSet
from omni.api.platform import HealthViewSet
from omni.api.services import ServiceViewSet
from omni.pages import frame
from releases.api import BuildViewSet, ReleaseViewSet
from releases.api_internal import WorkerArtifactViewSet, WorkerBuildViewSet
from releases.api_registries import RegistryViewSet
from services.api import AlertViewSet, SilenceViewSet
from services.api_agent import VantageViewSet

urlpatterns = [
    path("", documents.root),
    path("admin/", include("omni.pages.urls")),
    path("admin/password_change/", documents.nothing),  # /admin/account/ does it, through the gate
    path("admin/password_change/done/", documents.nothing),
    path("admin/", admin.site.urls),
    path("admin/<path:rest>", frame.nowhere),
    path("schema", documents.Schema.as_view(), name="schema"),
    path("docs", documents.Docs.as_view(), name="docs"),
    path("docs/problems", documents.problems),
    path("redoc", documents.Redoc.as_view(), name="redoc"),
    path("health", HealthViewSet.as_view({"get": "whole"})),
    path("health/live", HealthViewSet.as_view({"get": "live"})),
    path("health/ready", HealthViewSet.as_view({"get": "ready"})),
    path("cluster/status", ClusterViewSet.as_view({"get": "status"})),
    path("cluster/metrics", MetricsViewSet.as_view({"get": "series"})),
    path("metrics", MetricsViewSet.as_view({"get": "prometheus"})),
    path("cluster/transfer", ClusterViewSet.as_view({"post": "transfer"})),
    path("cluster/members", ClusterViewSet.as_view({"get": "members", "post": "add_member"})),
    path("cluster/members/<str:member>", ClusterViewSet.as_view({"delete": "remove_member"})),
    path("events", EventViewSet.as_view({"get": "list"})),
    path("webhooks", EventHookViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "webhooks/<int:hook_id>",
        EventHookViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("orgs", OrgViewSet.as_view({"get": "list", "post": "create"})),
    path("orgs/<str:org>", OrgViewSet.as_view({"get": "retrieve", "patch": "partial_update"})),
    path("orgs/<str:org>/quota", OrgViewSet.as_view({"get": "quota", "patch": "set_quota"})),
    path("orgs/<str:org>/members", OrgViewSet.as_view({"get": "members", "post": "add_member"})),
    path("orgs/<str:org>/members/<str:user>", OrgViewSet.as_view({"delete": "remove_member"})),
    path("orgs/<str:org>/registries", RegistryViewSet.as_view({"get": "list", "post": "create"})),
    path("orgs/<str:org>/registries/<int:pk>", RegistryViewSet.as_view({"delete": "destroy"})),
    path("me/password", MeViewSet.as_view({"post": "change_password"})),
    path("tokens", TokenViewSet.as_view({"get": "list", "post": "create"})),
    path("tokens/<int:pk>", TokenViewSet.as_view({"delete": "destroy"})),
    path("app", AppViewSet.as_view({"get": "list"})),
    path("app/create", AppViewSet.as_view({"post": "create"})),
    path("app/<str:app>", AppViewSet.as_view({"patch": "partial_update", "delete": "destroy"})),
    path("app/<str:app>/info", AppViewSet.as_view({"get": "info"})),
    path("app/<str:app>/metrics", AppViewSet.as_view({"get": "metrics"})),
    path("app/<str:app>/start", AppViewSet.as_view({"post": "start"})),
    path("app/<str:app>/stop", AppViewSet.as_view({"post": "stop"})),
    path("app/<str:app>/restart", AppViewSet.as_view({"post": "restart"})),
    path("app/<str:app>/scale", AppViewSet.as_view({"post": "scale"})),
    path("app/<str:app>/config", AppViewSet.as_view({"get": "config", "patch": "set_config"})),
    path("app/<str:app>/release/<str:version>/deploy", DeploymentViewSet.as_view({"post": "deploy"})),
    path("app/<str:app>/rollback", DeploymentViewSet.as_view({"post": "rollback"})),
    path("app/<str:app>/deployments", DeploymentViewSet.as_view({"get": "list"})),
    path("app/<str:app>/deployments/<int:deployment_id>", DeploymentViewSet.as_view({"get": "retrieve"})),
    path("app/<str:app>/deployments/<int:deployment_id>/cancel", DeploymentViewSet.as_view({"post": "cancel"})),
    path("app/<str:app>/deployments/<int:deployment_id>/pause", DeploymentViewSet.as_view({"post": "pause"})),
    path("app/<str:app>/deployments/<int:deployment_id>/resume", DeploymentViewSet.as_view({"post": "resume"})),
    path("app/<str:app>/deployments/<int:deployment_id>/promote", DeploymentViewSet.as_view({"post": "promote"})),
    path("app/<str:app>/instances", InstanceViewSet.as_view({"get": "list"})),
    path("app/<str:app>/instances/<int:instance_id>/metrics", InstanceViewSet.as_view({"get": "metrics"})),
    path("app/<str:app>/instances/<int:instance_id>/logs", InstanceViewSet.as_view({"get": "logs"})),
    path("app/<str:app>/instances/<int:instance_id>/details", InstanceViewSet.as_view({"get": "details"})),
    path("app/<str:app>/instances/<int:instance_id>/restart", InstanceViewSet.as_view({"post": "restart"})),
    path("app/<str:app>/instances/<int:instance_id>/exec", ExecViewSet.as_view({"get": "list", "post": "create"})),
    path("app/<str:app>/instances/<int:instance_id>/stop", InstanceViewSet.as_view({"post": "stop"})),
    path("app/<str:app>/logs", InstanceViewSet.as_view({"get": "app_logs"})),
    path("app/<str:app>/cron", CronViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "app/<str:app>/cron/<str:name>",
        CronViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("app/<str:app>/cron/<str:name>/runs", CronViewSet.as_view({"get": "runs"})),
    path("app/<str:app>/cron/<str:name>/run", CronViewSet.as_view({"post": "run"})),
    path("app/<str:app>/run", TaskViewSet.as_view({"post": "run"})),
    path("app/<str:app>/volumes", VolumeViewSet.as_view({"get": "list", "post": "create"})),
    path("app/<str:app>/volumes/<str:name>", VolumeViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
    path(
        "app/<str:app>/volumes/<str:name>/snapshots",
        SnapshotViewSet.as_view({"get": "of_volume", "post": "create"}),
    ),
    path("app/<str:app>/volumes/<str:name>/restores", RestoreViewSet.as_view({"get": "list", "post": "create"})),
    path("app/<str:app>/volumes/<str:name>/restores/<int:number>", RestoreViewSet.as_view({"get": "retrieve"})),
    path("app/<str:app>/snapshots", SnapshotViewSet.as_view({"get": "list"})),
    path("app/<str:app>/snapshots/<int:number>", SnapshotViewSet.as_view({"get": "retrieve", "delete": "destroy"})),
    path("app/<str:app>/tasks", TaskViewSet.as_view({"get": "list"})),
    path("app/<str:app>/tasks/<int:task_id>", TaskViewSet.as_view({"get": "retrieve"})),
    path("app/<str:app>/tasks/<int:task_id>/logs", TaskViewSet.as_view({"get": "logs"})),
    path("app/<str:app>/tasks/<int:task_id>/cancel", TaskViewSet.as_view({"post": "cancel"})),
    path("services", ServiceViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "services/<str:service>",
        ServiceViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("services/<str:service>/checks", ServiceViewSet.as_view({"get": "checks"})),
    path("services/<str:service>/remedies", ServiceViewSet.as_view({"get": "remedies"})),
    path("services/<str:service>/heartbeat", ServiceViewSet.as_view({"post": "heartbeat"})),
    path("alerts", AlertViewSet.as_view({"get": "list"})),
    path("alerts/<int:alert_id>", AlertViewSet.as_view({"get": "retrieve"})),
    path("alerts/<int:alert_id>/ack", AlertViewSet.as_view({"post": "ack"})),
    path("alerts/<int:alert_id>/silence", AlertViewSet.as_view({"post": "silence"})),
    path("silences", SilenceViewSet.as_view({"get": "list", "post": "create"})),
    path("silences/<int:silence_id>", SilenceViewSet.as_view({"delete": "destroy"})),
    path("nodes", NodeViewSet.as_view({"get": "list"})),
    path("nodes/<str:node>", NodeViewSet.as_view({"get": "retrieve"})),
    path("nodes/<str:node>/metrics", NodeViewSet.as_view({"get": "metrics"})),
    path("nodes/<str:node>/drain", NodeViewSet.as_view({"post": "drain"})),
    path("nodes/<str:node>/activate", NodeViewSet.as_view({"post": "activate"})),
    path("app/<str:app>/releases", ReleaseViewSet.as_view({"get": "list"})),
    path("app/<str:app>/release/<str:version>", ReleaseViewSet.as_view({"get": "retrieve"})),
    path("app/<str:app>/release/<str:version>/upload", ReleaseViewSet.as_view({"post": "upload"})),
    path("app/<str:app>/builds", BuildViewSet.as_view({"get": "list"})),
    path("app/<str:app>/builds/<int:build_id>", BuildViewSet.as_view({"get": "retrieve"})),
    path("app/<str:app>/builds/<int:build_id>/logs", BuildViewSet.as_view({"get": "logs"})),
    path("app/<str:app>/builds/<int:build_id>/cancel", BuildViewSet.as_view({"post": "cancel"})),
    # what agents and ingresses say and ask; not part of the public contract
    path("agent/assignments", AgentViewSet.as_view({"get": "assignments"})),
    path("agent/routes", AgentViewSet.as_view({"get": "routes"})),
    path("agent/report", AgentViewSet.as_view({"post": "report"})),
    path("agent/logs", AgentViewSet.as_view({"post": "logs"})),
    path("agent/samples", AgentViewSet.as_view({"post": "samples"})),
    path("agent/requests", AgentViewSet.as_view({"post": "requests"})),
    path("agent/exec/<int:session_id>", ExecViewSet.as_view({"get": "expected"})),
    path("agent/exec/<int:session_id>/attach", ExecViewSet.as_view({"post": "attach"})),
    path("agent/snapshots/<int:number>", SnapshotArchiveViewSet.as_view({"put": "keep"})),
    path("agent/drained", AgentViewSet.as_view({"post": "drained"})),
    path("agent/checks", VantageViewSet.as_view({"get": "checks"})),
    path("agent/verdicts", VantageViewSet.as_view({"post": "verdicts"})),
    path("agent/spans", VantageViewSet.as_view({"post": "spans"})),
    path("agent/packages/<str:sha256>", AgentViewSet.as_view({"get": "package"})),
    # what build workers say and ask; not part of the public contract
    path("internal/builds/<int:build_id>/claim", WorkerBuildViewSet.as_view({"post": "claim"})),
    path("internal/builds/<int:build_id>/heartbeat", WorkerBuildViewSet.as_view({"post": "heartbeat"})),
    path("internal/builds/<int:build_id>/logs", WorkerBuildViewSet.as_view({"post": "logs"})),
    path("internal/builds/<int:build_id>/finish", WorkerBuildViewSet.as_view({"post": "finish"})),
    path("internal/artifacts/<str:sha256>", WorkerArtifactViewSet.as_view({"get": "retrieve"})),
    path("internal/packages/<str:sha256>", WorkerArtifactViewSet.as_view({"put": "store_package"})),
]

handler400 = "omni.rest.problem.bad_request"
handler403 = "omni.rest.problem.permission_denied"
handler404 = "omni.rest.problem.not_found"
handler500 = "omni.rest.problem.server_error"

"""The whole URL map on one page. No trailing slashes; `<app>` is an id or a name."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from accounts.api import OrgViewSet, TokenViewSet
from omni.api import documents
from omni.api.events import EventViewSet
from omni.api.platform import ClusterViewSet, HealthViewSet
from releases.api import BuildViewSet, ReleaseViewSet
from releases.api_internal import WorkerArtifactViewSet, WorkerBuildViewSet

urlpatterns = [
    path("", documents.root),
    path("admin/", admin.site.urls),
    path("schema", documents.Schema.as_view(), name="schema"),
    path("docs", documents.Docs.as_view(), name="docs"),
    path("redoc", documents.Redoc.as_view(), name="redoc"),
    path("health", HealthViewSet.as_view({"get": "whole"})),
    path("health/live", HealthViewSet.as_view({"get": "live"})),
    path("health/ready", HealthViewSet.as_view({"get": "ready"})),
    path("cluster/status", ClusterViewSet.as_view({"get": "status"})),
    path("cluster/transfer", ClusterViewSet.as_view({"post": "transfer"})),
    path("events", EventViewSet.as_view({"get": "list"})),
    path("orgs", OrgViewSet.as_view({"get": "list", "post": "create"})),
    path("orgs/<str:org>", OrgViewSet.as_view({"get": "retrieve", "patch": "partial_update"})),
    path("orgs/<str:org>/quota", OrgViewSet.as_view({"get": "quota", "patch": "set_quota"})),
    path("orgs/<str:org>/members", OrgViewSet.as_view({"get": "members", "post": "add_member"})),
    path("orgs/<str:org>/members/<str:user>", OrgViewSet.as_view({"delete": "remove_member"})),
    path("tokens", TokenViewSet.as_view({"get": "list", "post": "create"})),
    path("tokens/<int:pk>", TokenViewSet.as_view({"delete": "destroy"})),
    path("app/<str:app>/releases", ReleaseViewSet.as_view({"get": "list"})),
    path("app/<str:app>/release/<str:version>", ReleaseViewSet.as_view({"get": "retrieve"})),
    path("app/<str:app>/release/<str:version>/upload", ReleaseViewSet.as_view({"post": "upload"})),
    path("app/<str:app>/builds", BuildViewSet.as_view({"get": "list"})),
    path("app/<str:app>/builds/<int:build_id>", BuildViewSet.as_view({"get": "retrieve"})),
    path("app/<str:app>/builds/<int:build_id>/logs", BuildViewSet.as_view({"get": "logs"})),
    path("app/<str:app>/builds/<int:build_id>/cancel", BuildViewSet.as_view({"post": "cancel"})),
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

"""The whole URL map on one page. No trailing slashes; `<app>` is an id or a name."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from accounts.api import OrgViewSet, TokenViewSet
from omni.api import documents
from omni.api.events import EventViewSet
from omni.api.platform import ClusterViewSet, HealthViewSet

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
]

handler400 = "omni.rest.problem.bad_request"
handler403 = "omni.rest.problem.permission_denied"
handler404 = "omni.rest.problem.not_found"
handler500 = "omni.rest.problem.server_error"

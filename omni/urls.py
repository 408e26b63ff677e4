"""The whole URL map on one page. No trailing slashes; `<app>` is an id or a name."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

urlpatterns = [
    path("admin/", admin.site.urls),
]

handler400 = "omni.rest.problem.bad_request"
handler403 = "omni.rest.problem.permission_denied"
handler404 = "omni.rest.problem.not_found"
handler500 = "omni.rest.problem.server_error"

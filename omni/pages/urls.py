"""The console's addresses. They come before those of Django's admin, whose tables stay reachable under `/admin/`."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from omni.pages import (
    acting,
    alerts,
    app,
    apps,
    audit,
    cluster,
    config,
    data,
    deployments,
    instance,
    nodes,
    overview,
    people,
    releases,
    services,
    services_form,
)

urlpatterns = [
    path("", overview.view),
    path("app/", apps.view),
    path("app/<str:app>/", app.view),
    path("app/<str:app>/logs/", app.logs),
    path("app/<str:app>/events/", app.events),
    path("app/<str:app>/config/", config.view),
    path("app/<str:app>/releases/", releases.releases),
    path("app/<str:app>/builds/", releases.builds),
    path("app/<str:app>/builds/<int:build>/", releases.build),
    path("app/<str:app>/deployments/", deployments.listing),
    path("app/<str:app>/deployments/<int:deployment>/", deployments.one),
    path("app/<str:app>/instances/<int:instance>/", instance.view),
    path("nodes/", nodes.listing),
    path("nodes/<str:node>/", nodes.one),
    path("cluster/", cluster.view),
    path("service/", services.listing),
    path("service/new/", services_form.new),
    path("service/<int:service>/", services.one),
    path("service/<int:service>/edit/", services_form.edit),
    path("alerts/", alerts.alerts),
    path("silences/", alerts.silences),
    path("events/", audit.view),
    path("orgs/", people.orgs),
    path("orgs/<str:org>/", people.org),
    path("tokens/", people.tokens),
    path("account/", people.account),
    path("data/nodes/<str:node>/", data.of_node),
    path("data/app/<str:app>/instances/<int:instance>/", data.of_instance),
    path("data/platform/", data.of_platform),
    path("data/app/<str:app>/", data.of_app),
    path("do/<slug:name>/", acting.act_view),
    path("tables/", admin.site.admin_view(admin.site.index)),
]

"""The console: every table can be looked at, nothing can be changed by hand, secrets are not shown."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from omni.testing.factories import (
    make_app,
    make_cron,
    make_deployment,
    make_instance,
    make_node,
    make_org,
    make_release,
    make_task,
    make_token,
    make_user,
)

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]


@pytest.fixture
def console() -> Client:
    client = Client()
    client.force_login(make_user("boss", superuser=True), backend="accounts.console_login.ConsoleBackend")
    return client


@pytest.fixture
def rows() -> dict[str, Any]:
    org = make_org("home")
    app = make_app(org, "web", env={"K": "hush-hush"})
    release = make_release(app)
    deployment = make_deployment(app, release)
    instance = make_instance(app, release, make_node(), deployment=deployment)
    task = make_task(app, release, env={"K": "hush-hush"})
    make_cron(app, task, env={"K": "hush-hush"})
    return {"app": app, "instance": instance, "token": make_token(org)}


@pytest.mark.slow
def test_every_registered_table_opens(console: Client, rows: dict[str, Any]) -> None:
    assert console.get("/admin/").status_code == 200
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        answer = console.get(reverse(f"{name}_changelist"))
        assert answer.status_code == 200, name
        row = model._default_manager.first()
        if row is not None:
            page = console.get(reverse(f"{name}_change", args=[row.pk]))
            assert page.status_code == 200, name
            assert b"hush-hush" not in page.content


def test_the_platforms_nouns_are_registered() -> None:
    names = {model.__name__ for model in admin.site._registry}
    assert {"Org", "App", "Build", "Release", "Artifact", "Deployment", "Instance", "Node", "Event", "Fence"} <= names


def test_nothing_can_be_changed_by_hand(console: Client, rows: dict[str, Any]) -> None:
    url = reverse("admin:apps_app_change", args=[rows["app"].pk])
    assert console.post(url, {"status": "running"}).status_code == 403
    assert console.post(reverse("admin:apps_app_delete", args=[rows["app"].pk]), {"post": "yes"}).status_code == 403
    assert console.get(reverse("admin:apps_app_add")).status_code == 403


def test_who_is_no_member_of_anything_does_not_get_in(rows: dict[str, Any]) -> None:
    client = Client()
    client.force_login(make_user("nobody"), backend="accounts.console_login.ConsoleBackend")
    assert client.get("/admin/").status_code == 302


def test_a_developer_sees_no_plain_table(rows: dict[str, Any]) -> None:
    client = Client()
    client.force_login(make_user("dev", org=rows["app"].org), backend="accounts.console_login.ConsoleBackend")
    assert client.get("/admin/").status_code == 200
    for model in admin.site._registry:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        assert client.get(url).status_code == 403, url


@pytest.mark.slow
def test_logging_in_writes_no_control_plane_row() -> None:
    from django.contrib.auth.hashers import make_password

    from consensus import gate

    with gate.maintenance("test"):
        User.objects.create(
            username="boss", password=make_password("correct horse battery"), is_staff=True, is_superuser=True
        )
    client = Client()
    answer = client.post("/admin/login/?next=/admin/", {"username": "boss", "password": "correct horse battery"})
    assert answer.status_code == 302
    assert client.get("/admin/").status_code == 200
    assert User.objects.get(username="boss").last_login is None


@pytest.mark.slow
def test_no_page_names_another_host(console: Client, rows: dict[str, Any]) -> None:
    import re

    for path in ("/admin/", "/admin/apps/app/", "/docs", "/redoc"):
        page = console.get(path).content.decode()
        loaded = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?(https?://[^"'\s)]+)""", page)
        assert [url for url in loaded if "localhost" not in url] == [], path

"""Credentials of private registries: sealed, never shown, an org's own, and given only where they are of use."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from apps import fields as app_fields
from apps import runtimes
from apps.models import App
from instances import assignments, offered
from omni.kernel.models import Event
from omni.testing.factories import make_build, make_instance, make_node, make_org, make_release, make_token
from releases import services
from releases.models import RegistryCredential

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.database]
GIVEN = {"registry": "ghcr.io", "username": "anna", "password": "geheim"}


def call(token: str, method: str, path: str, body: object = None) -> Any:
    data = json.dumps(body) if body is not None else ""
    headers = {"Authorization": f"Bearer {token}"}
    return Client().generic(method, path, data, content_type="application/json", headers=headers)


def test_a_registry_is_stored_sealed_and_replaced_and_removed(app: App) -> None:
    token = make_token(app.org, role="admin")
    path = f"/orgs/{app.org.name}/registries"
    first = call(token, "POST", path, GIVEN)
    assert first.status_code == 201, first.json()
    again = call(token, "POST", path, {**GIVEN, "password": "neu"})
    assert (again.json()["id"], again.json()["revision"]) == (first.json()["id"], 2)
    shown = call(token, "GET", path).json()["items"]
    assert [(one["registry"], one["username"], one["password"]) for one in shown] == [
        ("ghcr.io", "anna", {"secret": True})
    ]
    kept = RegistryCredential.objects.get().password
    told = json.dumps(list(Event.objects.values_list("change", flat=True)))
    assert not any(word in kept + told for word in ("geheim", "neu"))
    assert call(token, "DELETE", f"{path}/{first.json()['id']}").status_code == 204
    assert not RegistryCredential.objects.exists()


def test_another_org_and_a_developer_are_kept_from_it(app: App) -> None:
    path = f"/orgs/{app.org.name}/registries"
    assert call(make_token(make_org("other"), role="owner"), "GET", path).status_code == 404
    assert call(make_token(app.org, role="developer"), "POST", path, GIVEN).status_code == 403
    bad = call(make_token(app.org, role="admin"), "POST", path, {**GIVEN, "registry": "http://x/y"})
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/registry")


def test_a_worker_is_given_them_only_for_builds_that_can_use_them(app: App) -> None:
    assert call(make_token(app.org, role="admin"), "POST", f"/orgs/{app.org.name}/registries", GIVEN).status_code == 201
    build = make_build(app)
    assert services.registry_logins(build) == []
    build.app.runtime = "docker"
    assert services.registry_logins(build) == [GIVEN]


@pytest.mark.parametrize(("builder", "kind"), [("python", "tree"), ("dockerfile", "image"), ("image", "image")])
def test_a_node_is_told_what_a_package_is(app: App, builder: str, kind: str) -> None:
    release = make_release(app, build=make_build(app, status="succeeded", builder=builder))
    node = make_node("n1")
    make_instance(app, release, node, on_node=True)
    assert [one["release"]["kind"] for one in assignments.of_node("n1")] == [kind]


def test_a_runtime_that_no_node_has_is_refused_with_each_nodes_reason(app: App) -> None:
    make_node("n1", facts={"runtimes": ["process"], "without": {"docker": "no engine: none is there"}})
    assert "n1: no engine: none is there" in (runtimes.missing("docker") or "")
    refused = app_fields.AppFields(data={"runtime": "docker"}, partial=True)
    assert not refused.is_valid()
    make_node("n2", facts={"runtimes": ["docker", "process"]})
    assert offered.missing("docker") is None
    assert app_fields.AppFields(data={"runtime": "docker"}, partial=True).is_valid()

"""A copy of the org saves a question, and never decides anything that is not so."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client

from accounts.models import ApiToken, Org
from accounts.services import revoke_token, update_org
from apps.models import App
from consensus import gate
from omni.kernel import clock
from omni.kernel.models import Event
from omni.testing.factories import make_org, make_token

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]


def create(token: str, name: str, query: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    return Client().post(f"/app/create{query}", {"name": name}, "application/json", headers=headers)


def the_token(org: Org) -> ApiToken:
    return ApiToken.objects.get(org=org)


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_token_revoked_a_moment_ago_writes_nothing(query: str, in_gate: Any) -> None:
    org = make_org()
    token = make_token(org)
    assert create(token, "first").status_code == 201
    in_gate(revoke_token, token=the_token(org))
    answer = create(token, "second", query)
    assert (answer.status_code, answer.json()["code"]) == (403, "token_revoked")
    assert list(App.objects.values_list("name", flat=True)) == ["first"]


def test_a_token_that_expired_a_moment_ago_writes_nothing() -> None:
    org = make_org()
    token = make_token(org)
    assert create(token, "first").status_code == 201
    with gate.maintenance("test"):
        ApiToken.objects.filter(org=org).update(expires_at=clock.now() - dt.timedelta(seconds=1))
    assert create(token, "second").status_code == 403
    assert App.objects.count() == 1


def test_a_quota_counts_from_the_moment_it_is_set_and_until_it_is_raised(in_gate: Any) -> None:
    org = make_org()
    token = make_token(org)
    assert create(token, "first").status_code == 201
    in_gate(update_org, org=Org.objects.get(pk=org.pk), values={"max_apps": 1})
    refused = create(token, "second")
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    in_gate(update_org, org=Org.objects.get(pk=org.pk), values={"max_apps": 2})
    assert create(token, "second").status_code == 201
    assert create(token, "third").status_code == 403


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_change_that_does_not_matter_is_not_noticed(query: str, in_gate: Any) -> None:
    org = make_org()
    token = make_token(org)
    assert create(token, "first").status_code == 201
    in_gate(update_org, org=Org.objects.get(pk=org.pk), values={"description": "changed"})
    answer = create(token, "second", query)
    assert answer.status_code == (200 if query else 201)
    made = ["first"] if query else ["first", "second"]
    assert sorted(App.objects.values_list("name", flat=True)) == made
    assert Event.objects.filter(kind="app.created").count() == len(made)

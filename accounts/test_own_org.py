"""A copy of the org saves a question, and never decides anything that is not so."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.test import Client

from accounts import authentication
from accounts.models import ApiToken, Org
from accounts.own_org import own_org
from accounts.services import revoke_token, update_org
from apps.models import App
from consensus import gate
from consensus.models import Fence
from omni.kernel import clock
from omni.kernel.models import Event
from omni.testing.factories import make_actor, make_org, make_token

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


def test_a_token_that_expired_a_moment_ago_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    org = make_org()
    token = make_token(org, expires_at=clock.now() + dt.timedelta(hours=1))
    assert create(token, "first").status_code == 201
    later = clock.now() + dt.timedelta(hours=2)
    authenticated = authentication.remembered
    monkeypatch.setattr(authentication, "remembered", lambda key, _for_s: authenticated(key, 1e9))
    monkeypatch.setattr("consensus.gate.clock.now", lambda: later)
    assert create(token, "second").status_code in (401, 403)
    assert App.objects.count() == 1


def test_a_copy_is_used_until_rights_change(in_gate: Any, django_assert_num_queries: Any) -> None:
    org = make_org()
    actor = make_actor(org)

    def write(tx: gate.Transaction) -> tuple[int, int | None]:
        found = own_org(tx, "apps:write")
        tx.record("test.written", "org", found.pk)
        return found.pk, tx.rights_as_at

    def run() -> tuple[int, int | None]:
        return gate.run(write, actor=actor, cause="test")[0]

    assert run() == (org.pk, None)
    assert run() == (org.pk, 0)
    in_gate(lambda tx: update_org(tx, Org.objects.get(pk=org.pk), {"description": "x"}))
    moved = Fence.objects.get().rights_index
    assert moved == Fence.objects.get().write_index
    assert run() == (org.pk, None)
    assert run() == (org.pk, moved)


def test_what_a_transaction_changes_itself_is_no_copy() -> None:
    org = make_org()
    actor = make_actor(org)

    def change(tx: gate.Transaction) -> None:
        update_org(tx, Org.objects.get(pk=org.pk), {"max_apps": 7})
        assert own_org(tx, "apps:write").max_apps == 7
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gate.run(change, actor=actor, cause="test")
    assert gate.rehearse(lambda tx: own_org(tx, "apps:write"), actor=actor, cause="test").max_apps is None
    assert gate.run(lambda tx: own_org(tx, "apps:write"), actor=actor, cause="test")[0].max_apps is None


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

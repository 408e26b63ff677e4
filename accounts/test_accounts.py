"""Who may do what: orgs, members, tokens."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import Client

from accounts import roles, services, tokens
from accounts.models import ApiToken, Membership, Org
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.kernel.errors import Conflict, Forbidden
from omni.kernel.models import Event
from omni.testing.factories import make_actor, make_org, make_token, make_user

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]


def call(token: str, method: str, path: str, data: Any = None) -> Any:
    body = "" if data is None else json.dumps(data)
    return Client().generic(
        method, path, body, content_type="application/json", headers={"Authorization": f"Bearer {token}"}
    )


def test_another_orgs_objects_do_not_exist() -> None:
    mine, theirs = make_org("mine"), make_org("theirs")
    token = make_token(mine)
    foreign = ApiToken.objects.get(digest=tokens.digest(make_token(theirs)))
    assert call(token, "GET", f"/orgs/{theirs.pk}").status_code == 404
    assert call(token, "PATCH", "/orgs/theirs", {"description": "x"}).status_code == 404
    assert call(token, "GET", "/orgs/theirs/members").status_code == 404
    assert call(token, "DELETE", f"/tokens/{foreign.pk}").status_code == 404
    assert [org["name"] for org in call(token, "GET", "/orgs").json()["items"]] == ["mine"]


def test_a_token_is_shown_once_and_kept_as_a_digest() -> None:
    owner = make_token(make_org())
    made = call(owner, "POST", "/tokens", {"name": "ci", "role": "developer"}).json()
    assert ApiToken.objects.filter(digest=tokens.digest(made["token"])).exists()
    assert not any(made["token"] in str(vars(row)) for row in ApiToken.objects.all())
    assert "token" not in call(owner, "GET", "/tokens").json()["items"][0]


def test_a_revoked_and_an_expired_token_are_refused() -> None:
    org = make_org()
    owner = make_token(org)
    made = call(owner, "POST", "/tokens", {"name": "ci"}).json()
    assert call(made["token"], "GET", "/orgs").status_code == 200
    assert call(owner, "DELETE", f"/tokens/{made['id']}").status_code == 204
    assert call(made["token"], "GET", "/orgs").status_code == 401
    expired = make_token(org, expires_at=clock.now() - dt.timedelta(seconds=1))
    assert call(expired, "GET", "/orgs").status_code == 401


def test_a_token_can_be_revoked_twice() -> None:
    org = make_org()
    owner = make_token(org)
    made = call(owner, "POST", "/tokens", {"name": "ci"}).json()
    assert [call(owner, "DELETE", f"/tokens/{made['id']}").status_code for _ in range(2)] == [204, 204]


def test_an_org_keeps_its_name() -> None:
    owner = make_token(make_org("home"))
    assert call(owner, "PATCH", "/orgs/home", {"name": "home", "description": "x"}).status_code == 200
    assert call(owner, "PATCH", "/orgs/home", {"name": "other"}).json()["code"] == "org_name_fixed"


def test_a_token_may_not_do_more_than_its_creator() -> None:
    org = make_org()
    admin = make_token(org, role="admin")
    assert call(admin, "POST", "/tokens", {"name": "x", "role": "owner"}).status_code == 403
    assert call(admin, "POST", "/tokens", {"name": "x", "platform": True}).status_code == 403
    assert call(admin, "POST", "/tokens", {"name": "x", "scopes": ["root"]}).status_code == 422
    narrow = make_token(org, role="owner", scopes=["tokens:write", "tokens:read"])
    assert call(narrow, "POST", "/tokens", {"name": "x", "role": "viewer"}).status_code == 403
    assert call(narrow, "POST", "/tokens", {"name": "x", "role": "owner", "scopes": ["tokens:read"]}).status_code == 201


def test_a_narrowed_platform_token_cannot_widen_itself() -> None:
    narrow = make_token(make_org(), role="owner", scopes=["tokens:write"], platform=True)
    answer = call(narrow, "POST", "/tokens", {"name": "x", "role": "owner", "platform": True})
    assert (answer.status_code, answer.json()["code"]) == (403, "exceeds_creator")


def test_an_admin_neither_demotes_nor_removes_an_owner() -> None:
    org = make_org("home")
    owner, admin = make_token(org), make_token(org, role="admin")
    for name in ("ann", "bob"):
        member = {"user": name, "role": "owner", "password": "correct horse battery"}
        assert call(owner, "POST", "/orgs/home/members", member).status_code == 201
    assert call(admin, "POST", "/orgs/home/members", {"user": "ann", "role": "viewer"}).status_code == 403
    assert call(admin, "DELETE", "/orgs/home/members/ann").status_code == 403
    assert call(owner, "DELETE", "/orgs/home/members/ann").status_code == 204


def test_a_password_for_a_name_that_another_org_took_first_is_refused() -> None:
    theirs, mine = make_token(make_org("theirs")), make_token(make_org("mine"))
    member = {"user": "bob", "role": "developer", "password": "correct horse battery"}
    assert call(theirs, "POST", "/orgs/theirs/members", member).status_code == 201
    answer = call(mine, "POST", "/orgs/mine/members", member)
    assert (answer.status_code, answer.json()["code"]) == (409, "user_exists")
    assert not Membership.objects.filter(org__name="mine").exists()


def test_a_removed_members_tokens_go_along(in_gate: Any) -> None:
    org = make_org("home")
    owner, user = make_token(org), make_user("bob", org=org)
    token = make_token(org, role="developer", user=user)
    assert call(owner, "DELETE", "/orgs/home/members/bob").status_code == 204
    assert call(token, "GET", "/app").status_code == 401


def test_a_token_that_has_expired_already_is_not_made() -> None:
    answer = call(make_token(make_org()), "POST", "/tokens", {"name": "x", "expires_at": "2020-01-01T00:00:00Z"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "in_the_past")


def test_a_right_that_went_away_is_noticed_inside_the_gate(in_gate: Any) -> None:
    from accounts.access import recheck

    org = make_org()
    actor = make_actor(org)
    recheck(actor, "apps:write", org.pk)
    in_gate(services.revoke_token, token=ApiToken.objects.get(pk=actor.id))
    with pytest.raises(Forbidden):
        recheck(actor, "apps:write", org.pk)


def test_an_org_keeps_an_owner(in_gate: Any) -> None:
    org = make_org()
    user = make_user("ann", org=org, role="owner")
    with pytest.raises(Conflict):
        in_gate(services.remove_member, org=org, username="ann", acting=make_actor(org))
    make_user("bob", org=org, role="owner")
    in_gate(services.remove_member, org=org, username="ann", acting=make_actor(org))
    assert not Membership.objects.filter(user=user).exists()


def test_only_an_operator_makes_orgs_and_sets_quotas() -> None:
    org = make_org("acme")
    owner, operator = make_token(org), make_token(org, platform=True)
    assert call(owner, "POST", "/orgs", {"name": "new"}).status_code == 403
    assert call(owner, "PATCH", "/orgs/acme/quota", {"max_apps": 9}).status_code == 403
    assert call(operator, "PATCH", "/orgs/acme/quota", {"max_apps": 9}).json()["quota"]["max_apps"] == 9
    assert call(owner, "GET", "/orgs/acme/quota").json()["max_apps"] == 9


def test_the_bootstrap_is_idempotent(in_gate: Any) -> None:
    token = tokens.mint().secret
    assert in_gate(services.bootstrap, admin_token=token, admin_password="correct horse battery") is True
    assert in_gate(services.bootstrap, admin_token=token, admin_password="correct horse battery") is False
    assert Org.objects.filter(name="default").count() == 1
    assert call(token, "GET", "/cluster/status").status_code == 200


def test_roles_only_ever_add_rights() -> None:
    order = sorted(roles.RANK, key=roles.RANK.__getitem__)
    for lower, higher in itertools.pairwise(order):
        assert roles.ROLE_SCOPES[lower] <= roles.ROLE_SCOPES[higher]
    assert roles.scopes_of("nobody") == frozenset()


def test_an_internal_token_opens_nothing_but_internal_calls() -> None:
    from django.conf import settings

    from omni.kernel import internal_tokens, keys

    secret = keys.cluster_secret(settings.CONFIG)
    token = internal_tokens.mint("node", "127.0.0.1-8000", secret)
    assert call(token, "GET", "/orgs").status_code == 403
    assert call(token, "GET", "/events").status_code == 403
    assert call(token[:-1] + ("0" if token[-1] != "0" else "1"), "GET", "/orgs").status_code == 401


def test_the_short_way_to_ones_own_org_asks_the_same(in_gate: Any) -> None:
    from accounts.authentication import of_user
    from accounts.own_org import own_org
    from consensus import gate

    def ask(actor: Actor, scope: str = "apps:write") -> Org:
        def verb(tx: gate.Transaction) -> Org:
            found = own_org(tx, scope)
            tx.record("test.asked", "org", found.pk)
            return found

        return gate.run(verb, actor=actor, cause="test")[0]

    org = make_org("home", max_apps=3)
    actor = make_actor(org)
    assert (ask(actor).pk, ask(actor).max_apps) == (org.pk, 3)
    with pytest.raises(Forbidden):
        ask(make_actor(org, role="viewer"))
    with pytest.raises(Forbidden):
        ask(actor, "platform:write")
    assert ask(of_user(make_user("ann", org=org, role="developer"))).pk == org.pk
    in_gate(services.revoke_token, token=ApiToken.objects.get(pk=actor.id))
    with pytest.raises(Forbidden):
        ask(actor)
    expired = ApiToken.objects.get(
        digest=tokens.digest(make_token(org, expires_at=clock.now() - dt.timedelta(seconds=1)))
    )
    with pytest.raises(Forbidden):
        ask(dataclasses.replace(actor, id=expired.pk))


def _log_in(client: Client, name: str) -> None:
    client.force_login(User.objects.get(username=name), backend="accounts.console_login.ConsoleBackend")


@pytest.mark.slow
def test_whoever_knows_the_password_changes_it_and_only_this_session_goes_on() -> None:
    make_user("ines", password="the old one, long")
    here, elsewhere = Client(), Client()
    _log_in(here, "ines")
    _log_in(elsewhere, "ines")
    wrong = here.post("/me/password", {"current": "a guess", "password": "quite another one"}, "application/json")
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "wrong_password")
    short = here.post("/me/password", {"current": "the old one, long", "password": "short"}, "application/json")
    assert short.status_code == 422
    body = {"current": "the old one, long", "password": "quite another one"}
    assert here.post("/me/password", body, "application/json").status_code == 204
    assert Client().login(request=HttpRequest(), username="ines", password="quite another one")
    event = Event.objects.get(kind="user.password_changed")
    assert "another" not in str(event.change)
    assert here.get("/orgs").status_code != 401
    assert elsewhere.get("/orgs").status_code == 401


def test_a_token_has_no_password_and_nobody_unknown_changes_one() -> None:
    body = {"current": "the old one, long", "password": "quite another one"}
    assert call(make_token(make_org()), "POST", "/me/password", body).status_code == 403
    assert Client().post("/me/password", body, "application/json").status_code == 401

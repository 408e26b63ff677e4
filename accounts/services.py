"""The verbs of accounts: orgs, members, quotas, tokens, and the bootstrap of a new platform.

Owns every write to those rows. Runs inside the gate; rights are read again there (`access.recheck`).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import User
from django.db.models import F

from accounts import roles, tokens
from accounts.models import ApiToken, Membership, Org, Role
from consensus.gate import Transaction
from omni.kernel.context import Actor
from omni.kernel.errors import Conflict, FieldError, Forbidden, InvalidInput, NotFound

QUOTA_FIELDS = ("max_apps", "max_instances", "max_memory_mb", "max_builds_at_once")


def create_org(tx: Transaction, *, name: str, description: str = "") -> Org:
    """Raises Conflict for a taken name."""
    if Org.objects.filter(name=name).exists():
        detail = f"There is an org named {name} already."
        raise Conflict(detail, code="org_exists", errors=[FieldError("/name", "org_exists", detail)])
    org = Org(name=name, description=description, created_at=tx.at, updated_at=tx.at)
    org.save(force_insert=True)
    tx.record("org.created", "org", org.pk, org_id=org.pk, change={"name": name})
    return org


def update_org(tx: Transaction, org: Org, values: dict[str, Any]) -> None:
    """Change description or quotas. Raises Conflict when it was changed at the same time."""
    updated = Org.objects.filter(pk=org.pk, revision=org.revision).update(
        revision=F("revision") + 1, updated_at=tx.at, **values
    )
    if updated != 1:
        raise Conflict("The org was changed at the same time.", next="repeat the request")
    change = {name: [getattr(org, name), value] for name, value in values.items()}
    tx.record("org.updated", "org", org.pk, org_id=org.pk, change=change)
    org.refresh_from_db()


def add_member(
    tx: Transaction, *, org: Org, username: str, role: str, password: str | None, acting: Actor
) -> Membership:
    """Give a user a role; a new user is made when a password comes along. Raises Forbidden above one's own role."""
    _refuse_above(acting, role)
    user = User.objects.filter(username=username).first()
    if user is None:
        if password is None:
            raise NotFound(f"There is no user {username}; send a password to make one.", code="user_not_found")
        user = User(username=username, password=make_password(password), is_active=True)
        user.save(force_insert=True)
        tx.record("user.created", "user", user.pk, org_id=org.pk, change={"username": username})
    elif password is not None:  # whoever took the name first knows another password than the one sent here
        detail = f"There is a user {username} already; to make that user a member, send no password."
        raise Conflict(detail, code="user_exists", errors=[FieldError("/password", "user_exists", detail)])
    membership = Membership.objects.filter(org=org, user=user).first()
    if membership is None:
        membership = Membership(org=org, user=user, role=role, created_at=tx.at)
        membership.save(force_insert=True)
    elif membership.role != role:
        _refuse_above(acting, membership.role)
        _keep_an_owner(membership)
        Membership.objects.filter(pk=membership.pk).update(role=role, revision=F("revision") + 1)
        membership.refresh_from_db()
    tx.record("member.set", "user", user.pk, org_id=org.pk, change={"role": role})
    return membership


def change_password(tx: Transaction, *, user_id: int, current: str, made: str) -> None:
    """One's own: `made` is the new one's hash. Raises InvalidInput when `current` is not the password."""
    user = User.objects.get(pk=user_id)
    if not check_password(current, user.password):
        raise InvalidInput(errors=[FieldError("/current", "wrong_password", "That is not the present password.")])
    if User.objects.filter(pk=user.pk, password=user.password).update(password=made) != 1:
        raise Conflict("The password was changed at the same time.", next="log in again")
    tx.record("user.password_changed", "user", user.pk, org_id=tx.actor.org_id, change={"username": user.username})


def remove_member(tx: Transaction, *, org: Org, username: str, acting: Actor) -> None:
    """Takes the tokens along that the user made in this org.

    Raises NotFound, Forbidden for a higher role than one's own, or Conflict for the last owner.
    """
    membership = Membership.objects.filter(org=org, user__username=username).select_related("user").first()
    if membership is None:
        raise NotFound(f"{username} is no member of {org.name}.")
    _refuse_above(acting, membership.role)
    _keep_an_owner(membership)
    for token in ApiToken.objects.filter(org=org, user_id=membership.user_id, platform=False, revoked_at=None):
        revoke_token(tx, token)
    membership.delete()
    tx.record("member.removed", "user", membership.user_id, org_id=org.pk, change={"username": username})


def create_token(
    tx: Transaction,
    *,
    org: Org,
    name: str,
    role: str,
    scopes: list[str],
    platform: bool,
    expires_at: dt.datetime | None,
    acting: Actor,
) -> tuple[ApiToken, str]:
    """A new token and its secret, shown this once. Raises Forbidden when it could do more than its creator."""
    if platform and not acting.platform:
        raise Forbidden("Only a platform token can make a platform token.", code="exceeds_creator")
    _refuse_above(acting, role)
    given = roles.scopes_of(role, scopes, platform=platform)
    unknown = sorted(set(scopes) - roles.ALL_SCOPES)
    if unknown:
        raise InvalidInput(errors=[FieldError("/scopes", "unknown_scope", f"No such scope: {', '.join(unknown)}.")])
    if acting.kind != "system" and not given <= acting.scopes:
        raise Forbidden("A token may not do more than its creator.", code="exceeds_creator")
    if expires_at is not None and expires_at <= tx.at:
        raise InvalidInput(errors=[FieldError("/expires_at", "in_the_past", "The token would have expired already.")])
    new = tokens.mint()
    token = _insert_token(tx, org, name, new, role=role, scopes=scopes, platform=platform, expires_at=expires_at,
                          user_id=acting.user_id)  # fmt: skip
    return token, new.secret


def revoke_token(tx: Transaction, token: ApiToken) -> None:
    """Idempotent."""
    if token.revoked_at is None:
        ApiToken.objects.filter(pk=token.pk).update(revoked_at=tx.at, revision=F("revision") + 1)
        tx.record("token.revoked", "token", token.pk, org_id=token.org_id, change={"prefix": token.prefix})


def is_bootstrapped(admin_token: str) -> bool:
    """Whether `bootstrap` would find nothing to do."""
    known = ApiToken.objects.filter(digest=tokens.read(admin_token).digest).exists()
    return known and User.objects.filter(username="admin").exists()


def bootstrap(tx: Transaction, *, admin_token: str, admin_password: str) -> bool:
    """Org `default`, the user `admin` and the first token's hash; True if anything was missing (DECISIONS 5).

    Run by the first leader's start-up, with what `start.sh` left in the state directory. Idempotent.
    """
    org = Org.objects.filter(name="default").first()
    made = org is None
    org = org or create_org(tx, name="default", description="made by the first start")
    user = User.objects.filter(username="admin").first()
    if user is None and admin_password:
        user = User(username="admin", password=make_password(admin_password), is_staff=True, is_superuser=True)
        user.save(force_insert=True)
        Membership(org=org, user=user, role=Role.OWNER, created_at=tx.at).save(force_insert=True)
        tx.record("user.created", "user", user.pk, org_id=org.pk, change={"username": "admin"})
        made = True
    new = tokens.read(admin_token)
    if not ApiToken.objects.filter(digest=new.digest).exists():
        _insert_token(tx, org, "admin", new, role=Role.OWNER, scopes=[], platform=True, expires_at=None,
                      user_id=user.pk if user else None)  # fmt: skip
        made = True
    return made


def _insert_token(tx: Transaction, org: Org, name: str, new: tokens.NewToken, **fields: Any) -> ApiToken:
    token = ApiToken(
        org=org,
        name=name,
        prefix=new.prefix,
        digest=new.digest,
        created_at=tx.at,
        created_by=tx.actor.label,
        **fields,
    )
    token.save(force_insert=True)
    change = {"prefix": new.prefix, "role": fields["role"], "scopes": fields["scopes"]}
    tx.record("token.created", "token", token.pk, org_id=org.pk, change=change)
    return token


def _refuse_above(acting: Actor, role: str) -> None:
    if acting.platform or acting.kind == "system":
        return
    if roles.RANK.get(role, 99) > roles.RANK.get(acting.role, -1):
        raise Forbidden(f"A {acting.role} cannot give or take the role {role}.", code="exceeds_creator")


def _keep_an_owner(membership: Membership) -> None:
    others = Membership.objects.filter(org_id=membership.org_id, role=Role.OWNER).exclude(pk=membership.pk)
    if membership.role == Role.OWNER and not others.exists():
        raise Conflict("An org keeps at least one owner.", code="last_owner")

"""The one door to objects: every look-up of an org, app, build, release or instance goes through here.

Owns the rule that another org's object does not exist (404, never 403). The layers above pass their querysets through
`visible` in access modules of their own (`apps.access`, `releases.access`, `instances.access`).
"""

from __future__ import annotations

import re
from typing import TypeVar

from django.db.models import Model, QuerySet
from django.db.models.query import RawQuerySet

from accounts import authentication, roles
from accounts.models import ApiToken, Membership, Org
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.kernel.errors import Forbidden, NotFound

Row = TypeVar("Row", bound=Model)
# Asked for by every write: raw, because composing these two look-ups costs more than the database does.
_API_TOKENS = "SELECT * FROM accounts_apitoken"
_ORGS = "SELECT * FROM accounts_org"
_ID = re.compile(r"[0-9]{1,18}")


def orgs(actor: Actor) -> QuerySet[Org]:
    """The orgs that the actor may see."""
    if actor.platform:
        return Org.objects.all()
    if actor.kind == "user":
        return Org.objects.filter(memberships__user_id=actor.user_id or 0)
    return Org.objects.filter(id=actor.org_id or 0)


def org(actor: Actor, ref: str | int | None, *, lock: bool = False) -> Org:
    """An org by id or name; None is the actor's own. Raises NotFound."""
    visible = orgs(actor)
    if lock:
        visible = visible.select_for_update()
    if ref is None and not lock and actor.kind == "token":
        found = _row(Org.objects.raw(f"{_ORGS} WHERE id = %s", [actor.org_id]))
    elif ref is None:
        found = visible.filter(id=actor.org_id or 0).first()
    elif _ID.fullmatch(str(ref)):
        found = visible.filter(id=int(ref)).first()
    else:
        found = visible.filter(name=str(ref)).first()
    if found is None:
        raise NotFound("There is no such org.", next="GET /orgs")
    return found


def visible(actor: Actor, queryset: QuerySet[Row], org_path: str = "org") -> QuerySet[Row]:
    """The rows of `queryset` that the actor may see; `org_path` leads from the row to its org."""
    if actor.platform:
        return queryset
    if actor.kind == "user":
        return queryset.filter(**{f"{org_path}__memberships__user_id": actor.user_id})
    return queryset.filter(**{f"{org_path}_id": actor.org_id})


def may_see(actor: Actor, org_id: int) -> bool:
    """`visible` for a row whose org is known already."""
    if actor.platform:
        return True
    if actor.kind == "user":
        return Membership.objects.filter(user_id=actor.user_id or 0, org_id=org_id).exists()
    return actor.org_id is not None and actor.org_id == org_id


def _row(found: RawQuerySet[Row]) -> Row | None:
    return next(iter(found), None)


def recheck(actor: Actor, scope: str, org_id: int | None = None) -> None:
    """Read the actor's rights again, inside the gate: a token revoked a moment ago writes nothing (DECISIONS 3).

    Raises Forbidden when the scope is gone, NotFound when the org is no longer the actor's.
    """
    allowed = actor.scopes
    if actor.kind == "token":
        token = _row(ApiToken.objects.raw(f"{_API_TOKENS} WHERE id = %s AND revoked_at IS NULL", [actor.id]))
        if token is None or (token.expires_at is not None and token.expires_at <= clock.now()):
            raise Forbidden("The token was revoked.", code="token_revoked")
        allowed = authentication.of_token(token).scopes
    elif actor.kind == "user" and not actor.platform:
        member = Membership.objects.filter(user_id=actor.user_id or 0, org_id=org_id or actor.org_id or 0).first()
        if member is None:
            raise NotFound("There is no such org.", next="GET /orgs")
        allowed = roles.scopes_of(member.role)
    if scope not in allowed and actor.kind != "system":
        raise Forbidden(f"The scope {scope} is missing.", code="missing_scope")
    if org_id is not None and not actor.platform and actor.kind == "token" and actor.org_id != org_id:
        raise NotFound("There is no such org.")

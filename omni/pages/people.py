"""`/admin/orgs/` and `/admin/tokens/`: who may do what, and how much."""

from __future__ import annotations

from django.db.models import Count, Sum
from django.http import HttpRequest

from accounts import access, roles
from accounts.models import ApiToken, Membership, Org, TokenUse
from accounts.services import QUOTA_FIELDS
from apps.models import App
from omni.kernel import clock
from omni.kernel.context import Actor
from omni.pages.app import portion
from omni.pages.frame import Page, page

_MEMBERS = 500
_QUOTAS = {
    "max_apps": "Apps",
    "max_instances": "Instances",
    "max_memory_mb": "Memory, MiB",
    "max_builds_at_once": "Builds at once",
}


@page("orgs:read")
def orgs(request: HttpRequest, actor: Actor) -> Page:
    rows, older = portion(access.orgs(actor), request)
    ids = [org.pk for org in rows]
    counts = dict(App.objects.filter(org_id__in=ids).order_by().values_list("org_id").annotate(Count("id")))
    members = dict(Membership.objects.filter(org_id__in=ids).order_by().values_list("org_id").annotate(Count("id")))
    values = {
        "rows": [(org, counts.get(org.pk, 0), members.get(org.pk, 0)) for org in rows],
        "older": older,
        "may_create": "platform:write" in actor.scopes,
    }
    return Page("orgs.html", "Orgs", values, live=10)


@page("orgs:read")
def org(request: HttpRequest, actor: Actor, org: str) -> Page:
    found = access.org(actor, org)
    values = {
        "org": found,
        "members": list(Membership.objects.filter(org=found).select_related("user").order_by("id")[:_MEMBERS]),
        "quotas": _quotas(found),
        "roles": list(roles.RANK),
        "may": "orgs:write" in actor.scopes,
        "may_quota": "platform:write" in actor.scopes,
    }
    return Page("org.html", found.name, values, live=10, above=(("Orgs", "/admin/orgs/"),))


def _quotas(org: Org) -> list[dict[str, object]]:
    """Each quota, its limit (None: none), and what is used of it where that is counted."""
    rows = App.objects.filter(org=org).aggregate(apps=Count("id"), instances=Sum("instances"))
    memory = sum(a * b for a, b in App.objects.filter(org=org).values_list("instances", "memory_mb"))
    used = {"max_apps": rows["apps"], "max_instances": rows["instances"] or 0, "max_memory_mb": memory}
    return [
        {"name": name, "title": _QUOTAS[name], "limit": getattr(org, name), "used": used.get(name)}
        for name in QUOTA_FIELDS
    ]


@page("tokens:read")
def tokens(request: HttpRequest, actor: Actor) -> Page:
    rows, older = portion(access.visible(actor, ApiToken.objects.select_related("org")), request)
    used = {use.token_id: use for use in TokenUse.objects.filter(token_id__in=[row.pk for row in rows])}
    now = clock.now()
    values = {
        "rows": [(row, used.get(row.pk), _state(row, now)) for row in rows],
        "older": older,
        "orgs": list(access.orgs(actor).order_by("name").values_list("name", flat=True)[:200]),
        "roles": list(roles.RANK),
        "may": "tokens:write" in actor.scopes,
    }
    return Page("tokens.html", "Tokens", values, live=10)


@page("")
def account(request: HttpRequest, actor: Actor) -> Page:
    """Who one is here, and one's own password."""
    rows = Membership.objects.filter(user_id=actor.user_id or 0).select_related("org").order_by("id")[:_MEMBERS]
    return Page("account.html", "Your account", {"memberships": list(rows), "since": request.user.date_joined})  # type: ignore[union-attr]


def _state(token: ApiToken, now: object) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return "expired" if token.expires_at is not None and token.expires_at <= now else "active"  # type: ignore[operator]

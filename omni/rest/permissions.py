"""Default deny: a view names the scope that each of its actions needs; an action without one is refused.

The scopes of roles are data in `accounts.roles`; which object may be seen is decided by `accounts.access` alone.
"""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from omni.kernel.context import ANONYMOUS, Actor
from omni.kernel.errors import Forbidden, Unauthenticated

OPEN = "open"  # no credentials needed


def actor_of(request: Request) -> Actor:
    """Who asks; anonymous when nobody said."""
    return request.auth if isinstance(request.auth, Actor) else ANONYMOUS


def require(actor: Actor, scope: str) -> None:
    """Raises Unauthenticated, or Forbidden naming the missing scope."""
    if scope == OPEN:
        return
    if actor.kind == "anonymous":
        raise Unauthenticated("Send `Authorization: Bearer <token>`.", next="POST /tokens")
    if scope not in actor.scopes:
        raise Forbidden(f"The scope {scope} is missing.", code="missing_scope", next="GET /tokens")


class ScopePermission(BasePermission):
    def has_permission(self, request: Request, view: Any) -> bool:
        action = getattr(view, "action", None)
        if action in (None, "metadata"):  # a method that the route does not take: DRF answers 405; or OPTIONS
            return True
        scope = getattr(view, "scopes", {}).get(action)
        if scope is None:
            raise Forbidden(f"No scope is declared for {action}.", code="missing_scope")
        require(actor_of(request), scope)
        return True

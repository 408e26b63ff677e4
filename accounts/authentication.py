"""Who asks: from a bearer token, an internal token of a node or worker, or the console's session.

Owns the translation of credentials into an `Actor`. A token's row is kept in memory for a second, so that fast
polling costs no query; every verb reads its rights again inside the gate (`access.recheck`).
"""

from __future__ import annotations

import threading
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from accounts import roles, tokens
from accounts.models import ApiToken, Membership
from accounts.token_use import note_use
from omni.kernel import clock, internal_tokens, keys
from omni.kernel.context import Actor
from omni.kernel.errors import Forbidden, Unauthenticated

CACHE_S = 1.0
_CACHE_SIZE = 10_000
_cache: dict[str, tuple[float, Actor, float | None]] = {}
_lock = threading.Lock()

_INTERNAL_SCOPES = {
    "node": frozenset({"agent:sync", "internal:read"}),
    "worker": frozenset({"build:work", "internal:read"}),
}


class RequestActorAuthentication(BaseAuthentication):
    """DRF's way in. `request.auth` becomes the Actor; `request.user` the Django user of a session, else None."""

    def authenticate(self, request: Request | HttpRequest) -> tuple[Any, Actor] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if header:
            scheme, _, secret = header.partition(" ")
            if scheme.lower() != "bearer" or not secret:
                raise Unauthenticated("Send `Authorization: Bearer <token>`.")
            return None, _from_bearer(secret.strip(), str(request.META.get("REMOTE_ADDR", "")))
        plain: HttpRequest = getattr(request, "_request", request)
        user = getattr(plain, "user", None)
        if user is None or not user.is_authenticated or not user.is_active:
            return None
        _check_csrf(plain)
        return user, of_user(user)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="omni"'


def _from_bearer(secret: str, address: str) -> Actor:
    if secret.startswith(("omni_node_", "omni_worker_")):
        return _internal(secret)
    key = tokens.digest(secret)
    known = remembered(key, CACHE_S)
    if known is not None:
        return known
    actor = look_up(key)
    note_use(actor.id, address)
    return actor


def remembered(key: str, for_s: float) -> Actor | None:
    """Who was found under this digest not longer than `for_s` ago, on this member, and has not expired since."""
    known = _cache.get(key)
    if known is None or clock.monotonic() - known[0] >= for_s:
        return None
    return known[1] if known[2] is None or known[2] > clock.now().timestamp() else None


def look_up(key: str) -> Actor:
    """By the database. Raises Unauthenticated."""
    actor, expires = _look_up(key)
    with _lock:
        if len(_cache) >= _CACHE_SIZE:
            _cache.clear()
        _cache[key] = (clock.monotonic(), actor, expires)
    return actor


def forget() -> None:
    """Drop what is cached (after a revocation on this member, and between tests)."""
    with _lock:
        _cache.clear()


def _look_up(key: str) -> tuple[Actor, float | None]:
    token = ApiToken.objects.filter(digest=key, revoked_at=None).select_related("user").first()
    if token is None:
        raise Unauthenticated("The token is not known, or was revoked.")
    if token.expires_at is not None and token.expires_at <= clock.now():
        raise Unauthenticated("The token has expired.")
    if token.user is not None and not token.user.is_active:
        raise Unauthenticated("The token's user is not active.")
    return of_token(token), token.expires_at.timestamp() if token.expires_at else None


def of_token(token: ApiToken) -> Actor:
    return Actor(
        "token",
        id=token.pk,
        name=token.name,
        org_id=token.org_id,
        user_id=token.user_id,
        role=token.role,
        scopes=roles.scopes_of(token.role, token.scopes, platform=token.platform),
        platform=token.platform,
    )


def of_user(user: AbstractBaseUser) -> Actor:
    """A console user acts in the org of the first membership; a superuser runs the platform and sees every org."""
    platform = bool(getattr(user, "is_superuser", False))
    membership = Membership.objects.filter(user_id=user.pk).order_by("id").first()
    role = "owner" if platform else (membership.role if membership else "")
    return Actor(
        "user",
        id=int(user.pk),
        name=user.get_username(),
        org_id=membership.org_id if membership else None,
        user_id=int(user.pk),
        role=role,
        scopes=roles.scopes_of(role, platform=platform),
        platform=platform,
    )


def _internal(secret: str) -> Actor:
    verified = internal_tokens.verify(secret, keys.cluster_secret(settings.CONFIG))
    if verified is None:
        raise Unauthenticated("The internal token is not valid.")
    kind, name = verified
    return Actor("agent" if kind == "node" else "worker", name=name, scopes=_INTERNAL_SCOPES[kind], platform=True)


def _no_view(*_args: Any) -> HttpResponse:
    return HttpResponse()


def _check_csrf(request: HttpRequest) -> None:
    """A session is sent by the browser on its own, so a form's token must prove that our page sent it."""
    check = CsrfViewMiddleware(lambda _request: HttpResponse())
    check.process_request(request)
    if check.process_view(request, _no_view, (), {}) is not None:
        raise Forbidden("The form's security token is missing or old.", code="csrf")

"""Who asks, when the database cannot say: for the few reads that are answered without it.

Owns the fallback and its bounds: a token that this process has verified within the last ten minutes, or the first
admin's, which lies in the state directory. Reads only; a write needs the database anyway.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import Error
from django.http import HttpRequest
from rest_framework.request import Request

from accounts import authentication, roles, tokens
from accounts.authentication import RequestActorAuthentication
from omni.api import parts
from omni.kernel.context import Actor
from omni.kernel.errors import DatabaseUnavailable, OmniError

REMEMBERED_S = 600.0
_SAFE = ("GET", "HEAD", "OPTIONS")


class DegradedAuthentication(RequestActorAuthentication):
    """Like the usual one, but a read waits for the database no longer than a second."""

    def authenticate(self, request: Request | HttpRequest) -> tuple[Any, Actor] | None:
        scheme, _, secret = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if request.method not in _SAFE or scheme.lower() != "bearer":
            return super().authenticate(request)
        key = tokens.digest(secret.strip())
        known = authentication.remembered(key, authentication.CACHE_S)
        if known is None and parts.database.ask().up:
            found = parts.within(lambda: _look_up(super(DegradedAuthentication, self).authenticate, request), _silent)
            if isinstance(found, OmniError):
                raise found
            known = found
        known = known or _without_database(key)
        if known is None:
            raise DatabaseUnavailable("the database does not answer, and this token was not seen here of late")
        return None, known


def _look_up(authenticate: Callable[[Any], tuple[Any, Actor] | None], request: Any) -> Actor | OmniError | None:
    """The actor, or the refusal as a value; None when the database did not answer."""
    try:
        found = authenticate(request)
    except OmniError as refusal:
        return refusal
    except Error:
        return None
    return found[1] if found is not None else None


def _silent(_why: str) -> None:
    return None


def _without_database(key: str) -> Actor | None:
    known = authentication.remembered(key, REMEMBERED_S)
    if known is not None:
        return known
    try:
        admin = (settings.CONFIG.state / "admin.token").read_text().strip()
    except OSError:
        return None
    if not hmac.compare_digest(tokens.digest(admin), key):
        return None
    return Actor("token", name="admin", role="owner", scopes=roles.scopes_of("owner", platform=True), platform=True)

"""Who asks, when the database cannot say: for the few reads that are answered without it.

Owns the fallback and its bounds: a token that this process has verified within the last ten minutes, or the first
admin's, which lies in the state directory. Reads only; a write needs the database anyway.
"""

from __future__ import annotations

import hmac
from typing import Any

from django.conf import settings
from django.db import Error
from django.http import HttpRequest
from rest_framework.request import Request

from accounts import authentication, roles, tokens
from accounts.authentication import RequestActorAuthentication
from omni.api import parts
from omni.kernel.context import Actor
from omni.kernel.errors import DatabaseUnavailable

REMEMBERED_S = 600.0
_SAFE = ("GET", "HEAD", "OPTIONS")


class DegradedAuthentication(RequestActorAuthentication):
    """Like the usual one, but for a read it asks first whether the database answers at all, which takes a second."""

    def authenticate(self, request: Request | HttpRequest) -> tuple[Any, Actor] | None:
        scheme, _, secret = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if request.method not in _SAFE or scheme.lower() != "bearer" or parts.database.ask().up:
            try:
                return super().authenticate(request)
            except Error:
                if request.method not in _SAFE:
                    raise
        known = _without_database(tokens.digest(secret.strip()))
        if known is None:
            raise DatabaseUnavailable("the database does not answer, and this token was not seen here of late")
        return None, known


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

"""When tokens were last used: telemetry, at most once a minute per token, never in the way of a request."""

from __future__ import annotations

import contextlib

from django.db import Error

from accounts.models import TokenUse
from omni.kernel import clock

EVERY_S = 60.0
_noted: dict[int, float] = {}


def note_use(token_id: int, address: str) -> None:
    now = clock.monotonic()
    if _noted.get(token_id, -EVERY_S) > now - EVERY_S:
        return
    _noted[token_id] = now
    with contextlib.suppress(Error):  # a figure for people, not worth a failed request
        TokenUse.objects.update_or_create(
            token_id=token_id, defaults={"last_used_at": clock.now(), "address": address[:64]}
        )

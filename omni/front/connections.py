"""The database connections of a Django thread: checked after a pause, not before each request.

Owns when a connection is trusted. Django would ask the server before every request, a round trip for each of two
connections, which is most of what a light read costs. One that breaks under load is closed by Django when its error
surfaces (the request answers 503 and may be repeated); one that was idle is checked here first.
"""

from __future__ import annotations

import threading

from django.db import connections

from omni.kernel import clock

TRUSTED_S = 1.0
_last = threading.local()


def check_idle() -> None:
    """To be called on the thread before each request: closes what did not survive an idle second."""
    now = clock.monotonic()
    if now - getattr(_last, "at", 0.0) > TRUSTED_S:
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None and connection.vendor != "sqlite":
                connection.close_if_unusable_or_obsolete()
                if connection.connection is not None and not connection.is_usable():
                    connection.close()
    _last.at = now

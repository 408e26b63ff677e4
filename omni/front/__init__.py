"""The async front of a member: decides, waits, forwards and streams, so that Django's threads only ever compute.

`omni.front:app` is what granian serves. Django runs behind it on persistent threads with persistent connections.
Why: a WSGI thread that waits (event streams, waiting reads, slow uploads) starves the others, and Django under ASGI
opens a database connection per request (shared CHOICES §1).
"""

from __future__ import annotations

from omni.front.application import Front

app = Front()

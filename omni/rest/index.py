"""The write index that an answer reflects, cheaply.

Owns a per-process value that is at most 50 ms old. An older value is still a valid lower bound, which is all that a
read promises; a write on this member raises it at once.
"""

from __future__ import annotations

import threading

from django.db import Error

from consensus import fence
from omni.kernel import clock

FRESH_S = 0.05
_lock = threading.Lock()
_value = 0
_read_at = -1.0


def recent() -> int | None:
    """The write index, at most 50 ms old; None when the database does not answer."""
    global _read_at
    if clock.monotonic() - _read_at < FRESH_S:
        return _value
    try:
        found = fence.write_index()
    except Error:
        return None
    _read_at = clock.monotonic()
    return seen(found)


def exact() -> int:
    """The write index right now. Raises the database's errors."""
    return seen(fence.write_index())


def seen(value: int) -> int:
    """Remember an index that is known to be committed."""
    global _value
    with _lock:
        _value = max(_value, value)
        return _value


def forget() -> None:
    """Start over: another database (tests, restore)."""
    global _value, _read_at
    with _lock:
        _value, _read_at = 0, -1.0

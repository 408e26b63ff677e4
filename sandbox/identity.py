"""Which user id an app, a build or a build worker runs as.

Owns the arithmetic only: it creates no accounts, since the kernel needs none. Every app has an id of its own, so
that a process that breaks out of its sandbox still meets file permissions; builds and workers have other ranges.
"""

from __future__ import annotations

import os
from typing import Literal

Kind = Literal["app", "build", "worker"]

DEFAULT_BASE = 61000
APP_SLOTS = 20_000
BUILD_SLOTS = 1_000
WORKER_SLOTS = 100
ALL_SLOTS = APP_SLOTS + BUILD_SLOTS + WORKER_SLOTS
_RANGES = {"app": (0, APP_SLOTS), "build": (APP_SLOTS, BUILD_SLOTS), "worker": (APP_SLOTS + BUILD_SLOTS, WORKER_SLOTS)}

# 65534 is "nobody" and what unmapped owners show up as; 65535 is -1 for 16-bit interfaces.
_RESERVED = (65534, 65535)


def uid_for(kind: Kind, number: int, base: int = DEFAULT_BASE) -> int:
    """The user id (and group id) of app, build or worker `number`. Numbers wrap around at the size of the range."""
    if number < 0 or base <= 0:
        raise ValueError(f"no user id for {kind} {number} with base {base}")
    start, size = _RANGES[kind]
    return _skip_reserved(base + start + number % size)


def uid_range(kind: Kind, base: int = DEFAULT_BASE) -> tuple[int, int]:
    """First and last user id that `uid_for` can answer; the reserved ids inside belong to nobody."""
    start, size = _RANGES[kind]
    return _skip_reserved(base + start), _skip_reserved(base + start + size - 1)


def may_change_user() -> bool:
    """Whether this process can start others under another user id at all."""
    return os.geteuid() == 0


def _skip_reserved(uid: int) -> int:
    # Shifting everything from the reserved pair on keeps the mapping one-to-one.
    return uid + len(_RESERVED) if uid >= _RESERVED[0] else uid

"""What the leader thinks of every service, where it can be read with the database down.

Owns the hand-over inside the leader's daemon (its watch tells, its mirror copies it to the replicated state) and a
file of this member, from which a platform of one member, which has no replicated state, answers.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings

PREFIX = "service "  # of the names in the replicated state
FILE_EVERY_S = 2.0


@dataclass(slots=True)
class _Latest:
    records: Mapping[str, dict[str, str]] | None = None
    written: Mapping[str, dict[str, str]] | None = None
    written_at: float = float("-inf")


_latest = _Latest()
_lock = threading.Lock()


def tell(records: Mapping[str, dict[str, str]]) -> None:
    """`{name: {"state", "since", "detail"}}` of all services. Cheap when nothing changed."""
    with _lock:
        _latest.records = records
        if _latest.written == records or time.monotonic() - _latest.written_at < FILE_EVERY_S:
            return
        _latest.written, _latest.written_at = records, time.monotonic()
    file = _file()
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_bytes(orjson.dumps(records))
    fresh.replace(file)


def latest() -> Mapping[str, dict[str, str]] | None:
    """None before the first look of this process."""
    with _lock:
        return _latest.records


def forget() -> None:
    with _lock:
        _latest.records = _latest.written = None
        _latest.written_at = float("-inf")


def last_written() -> dict[str, Any]:
    """What this member's leader wrote last; empty when there is nothing."""
    try:
        return dict(orjson.loads(_file().read_bytes()))
    except (OSError, ValueError):
        return {}


def _file() -> Path:
    config = settings.CONFIG
    return Path(config.node_dir(config.me)) / "services.json"

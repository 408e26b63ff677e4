"""The only places where the agent reads a clock.

Durations are counted on the monotonic clock, which on Linux is the same for every process of one boot: a deadline
written to disk stays good when the agent restarts, and no jump of the wall clock moves it. Wall time is for people.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path


def monotonic() -> float:
    return time.monotonic()


def wall_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def rfc3339(seconds_from_now: float = 0.0) -> str:
    moment = datetime.fromtimestamp(time.time() + seconds_from_now, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def boot_id() -> str:
    """Names this boot of the host: pids and monotonic times of another boot mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"

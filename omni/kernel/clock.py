"""The only place that reads a clock for control-plane decisions; tests replace it.

Wall time is for rows and people, monotonic time for leases and time-outs (a clock jump must not expire a lease).
"""

from __future__ import annotations

import datetime as dt
import time


def now() -> dt.datetime:
    """Wall time, UTC, aware."""
    return dt.datetime.now(dt.UTC)


def monotonic() -> float:
    """Seconds that only ever grow, shared by all processes of one host."""
    return time.monotonic()


def rfc3339(moment: dt.datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds and `Z`, as every time in the API is written."""
    if moment is None:
        return None
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def sql(moment: dt.datetime) -> str:
    """As Django's backends write a time in UTC, without asking the settings each time."""
    return str(moment.astimezone(dt.UTC).replace(tzinfo=None))


def from_us(us: int) -> dt.datetime:
    """From microseconds since the epoch (telemetry rows)."""
    return dt.datetime.fromtimestamp(us / 1_000_000, dt.UTC)


def to_us(moment: dt.datetime) -> int:
    """To microseconds since the epoch (telemetry rows)."""
    return int(moment.timestamp() * 1_000_000)

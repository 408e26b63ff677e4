"""When a schedule is due. Pure but for the time-zone data of this host (the package `tzdata` where it has none).

Owns the rules of daylight saving, which are cronsim's and Debian cron's:

* Minute and hour both fixed (neither begins with `*`): once for each such local time of a day. One that is left out in
  spring is due at the first minute after the gap, one that comes twice in autumn is due the first time only.
* Otherwise the schedule is a period: due whenever the clock on the wall shows a time that fits. What is left out in
  spring does not come; what comes twice in autumn is due twice.

Due times are whole minutes, strictly ascending in UTC.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterator

from cronsim import CronSim, CronSimError

ALIASES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_FIELDS = 5


class BadSchedule(ValueError):
    """The text says what is wrong with an expression or a time zone."""


def check(expression: str, time_zone: str) -> None:
    """Raises BadSchedule for what cannot be read, and for what is never due."""
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    if next(upcoming(expression, time_zone, now), None) is None:
        raise BadSchedule("No time within 50 years fits it.")


def upcoming(expression: str, time_zone: str, after: dt.datetime) -> Iterator[dt.datetime]:
    """Due times after `after`, in UTC. Raises BadSchedule when it is begun."""
    zone = zone_of(time_zone)
    try:
        found = CronSim(fields_of(expression), after.astimezone(zone))
    except CronSimError as error:
        raise BadSchedule(f"{error}.") from error
    last = after
    for local in found:
        at = local.astimezone(dt.UTC)
        if at > last:  # fixed times of one gap are all due at its end: once
            last = at
            yield at


def first(expression: str, time_zone: str, after: dt.datetime) -> dt.datetime | None:
    """The next due time; None when there is none any more."""
    return next(upcoming(expression, time_zone, after), None)


def fields_of(expression: str) -> str:
    """The five fields of an expression or of an alias such as @daily."""
    text = " ".join(ALIASES.get(expression.strip().lower(), expression).split())
    if len(text.split()) != _FIELDS:
        raise BadSchedule("Five fields are wanted: minute, hour, day of the month, month, day of the week.")
    return text


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSchedule(f"{name} is no time zone such as UTC or Europe/Berlin.") from error

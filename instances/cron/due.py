"""What to do about due times that have come. Pure.

Owns the policy for what was missed: of all due times that have passed, the latest alone is started, and only while it
is not older than the entry's `start_deadline_s`. The others are missed; nothing is caught up on.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from instances.cron import schedule

MOST_COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """`start`: the due time that is to be started, or None. `missed` due times from `missed_from` on are not;
    `MOST_COUNTED` means: at least so many."""

    start: dt.datetime | None
    next_due: dt.datetime | None
    missed: int = 0
    missed_from: dt.datetime | None = None


def judge(expression: str, time_zone: str, due: dt.datetime, now: dt.datetime, start_deadline_s: float) -> Verdict:
    """For an entry whose next due time was `due`, which is not after `now`."""
    oldest = now - dt.timedelta(seconds=start_deadline_s)
    start = due if due >= oldest else None
    latest = due
    for at in schedule.upcoming(expression, time_zone, max(due, oldest - dt.timedelta(microseconds=1))):
        if at > now:
            break
        start = latest = at
    next_due = schedule.first(expression, time_zone, max(latest, now))
    missed = _passed(expression, time_zone, due, start or now + dt.timedelta(microseconds=1))
    return Verdict(start, next_due, missed, due if missed else None)


def _passed(expression: str, time_zone: str, due: dt.datetime, before: dt.datetime) -> int:
    """How many due times there are from `due` on and before that moment."""
    if due >= before:
        return 0
    count = 1
    for at in schedule.upcoming(expression, time_zone, due):
        if at >= before or count == MOST_COUNTED:
            break
        count += 1
    return count

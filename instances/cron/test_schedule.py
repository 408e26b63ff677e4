"""When schedules are due, across daylight saving; what is done about what was missed."""

from __future__ import annotations

import datetime as dt
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instances.cron import due, schedule
from instances.cron.schedule import BadSchedule

# Not Lord Howe, whose clocks change by half an hour: cronsim steps over it by whole ones (docs/processes.md).
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Sydney", "Asia/Kolkata", "America/Sao_Paulo")
BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = dt.timedelta(minutes=1)
TIMES = st.datetimes(dt.datetime(2024, 1, 1), dt.datetime(2028, 1, 1)).map(
    lambda at: at.replace(second=0, microsecond=0, tzinfo=dt.UTC)
)
# Near both changes of several zones in 2026 and 2027, where the rules have something to say.
CHANGES = [
    dt.datetime(2026, 3, 8, 7), dt.datetime(2026, 3, 29, 1), dt.datetime(2026, 4, 4, 15), dt.datetime(2026, 10, 3, 15),
    dt.datetime(2026, 10, 25, 1), dt.datetime(2026, 11, 1, 6), dt.datetime(2027, 3, 28, 1),
]  # fmt: skip
NEAR = st.builds(
    lambda at, minutes: at.replace(tzinfo=dt.UTC) + minutes * MINUTE,
    st.sampled_from(CHANGES),
    st.integers(-2000, 2000),
)
MINUTES = st.sampled_from(["0", "30", "15,45", "*/20", "5-10", "59"])
PERIODS = st.tuples(st.sampled_from(["*", "*/15", "*/7"]), st.sampled_from(["*", "*/2", "2", "1-3"])) | st.tuples(
    MINUTES, st.sampled_from(["*", "*/2", "*/3"])
)

FIXED = st.tuples(MINUTES, st.sampled_from(["2", "1,2"]))


def fits(field: str, value: int, low: int = 0) -> bool:
    """What a field means, said a second time and more simply."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, last = (low, 10_000) if span == "*" else (int(span.split("-")[0]), int(span.split("-")[-1]))
        if first <= value <= last and (value - first) % int(step or 1) == 0:
            return True
    return False


@settings(max_examples=30, deadline=None)
@given(after=NEAR, zone=st.sampled_from(ZONES), fields=PERIODS)
def test_a_period_is_due_whenever_the_wall_clock_fits(after: dt.datetime, zone: str, fields: tuple[str, str]) -> None:
    minute, hour = fields
    until = after + dt.timedelta(hours=7)
    found = []
    for at in schedule.upcoming(f"{minute} {hour} * * *", zone, after):
        if at > until:
            break
        found.append(at)
    wall = [(after + i * MINUTE, (after + i * MINUTE).astimezone(ZoneInfo(zone))) for i in range(1, 7 * 60 + 1)]
    assert found == [at for at, local in wall if fits(minute, local.minute) and fits(hour, local.hour)]


@settings(max_examples=30, deadline=None)
@given(after=NEAR, zone=st.sampled_from(ZONES), hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_a_fixed_time_is_due_once_a_day_whatever_the_clocks_do(
    after: dt.datetime, zone: str, hour: int, minute: int
) -> None:
    found = list(islice(schedule.upcoming(f"{minute} {hour} * * *", zone, after), 5))
    days = [at.astimezone(ZoneInfo(zone)).date() for at in found]
    assert days == [days[0] + dt.timedelta(days=i) for i in range(5)]


@settings(max_examples=40, deadline=None)
@given(after=NEAR | TIMES, zone=st.sampled_from(ZONES), fields=PERIODS | FIXED)
def test_due_times_ascend_and_do_not_depend_on_where_one_begins(
    after: dt.datetime, zone: str, fields: tuple[str, str]
) -> None:
    expression = f"{fields[0]} {fields[1]} * * *"
    found = list(islice(schedule.upcoming(expression, zone, after), 8))
    assert all(one < other for one, other in pairwise([after, *found]))
    assert all(at.second == at.microsecond == 0 for at in found)
    for at, following in pairwise(found):
        assert schedule.first(expression, zone, at) == following


def test_the_rules_of_daylight_saving_in_berlin_2026() -> None:
    """Those of docs/processes.md, word by word."""

    def local(expression: str, day: int, month: int, count: int) -> list[str]:
        after = dt.datetime(2026, month, day, 0, 0, tzinfo=BERLIN).astimezone(dt.UTC) - MINUTE
        times = islice(schedule.upcoming(expression, "Europe/Berlin", after), count)
        return [f"{at.astimezone(BERLIN):%d. %H:%M%z}" for at in times]

    assert local("30 2 * * *", 29, 3, 2) == ["29. 03:00+0200", "30. 02:30+0200"]
    assert local("30 2 * * *", 25, 10, 2) == ["25. 02:30+0200", "26. 02:30+0100"]
    assert local("0 * * * *", 29, 3, 4) == ["29. 00:00+0100", "29. 01:00+0100", "29. 03:00+0200", "29. 04:00+0200"]
    assert local("0 * * * *", 25, 10, 5)[2:] == ["25. 02:00+0200", "25. 02:00+0100", "25. 03:00+0100"]
    assert local("*/30 2 * * *", 29, 3, 1) == ["30. 02:00+0200"]
    assert local("0,30 2 * * *", 29, 3, 2) == ["29. 03:00+0200", "30. 02:00+0200"]


@pytest.mark.parametrize(
    ("expression", "zone", "says"),
    [("* * * *", "UTC", "Five"), ("* * * * * *", "UTC", "Five"), ("61 * * * *", "UTC", "minute"),
     ("0 0 31 4 *", "UTC", "day-of-month"), ("@never", "UTC", "Five"), ("* * * * *", "Mars/Base", "time zone"),
     ("* * * * *", "../etc/passwd", "time zone")],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_a_reason(expression: str, zone: str, says: str) -> None:
    with pytest.raises(BadSchedule, match=says):
        schedule.check(expression, zone)


def test_aliases_are_read() -> None:
    after = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert schedule.first("@daily", "UTC", after) == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@settings(max_examples=40, deadline=None)
@given(
    began=NEAR, minutes=st.integers(0, 900), deadline=st.integers(1, 7200), zone=st.sampled_from(ZONES), fields=PERIODS
)
def test_of_what_has_passed_the_latest_alone_is_started_and_nothing_is_lost_or_done_twice(
    began: dt.datetime, minutes: int, deadline: int, zone: str, fields: tuple[str, str]
) -> None:
    expression = f"{fields[0]} {fields[1]} * * *"
    first = schedule.first(expression, zone, began)
    assert first is not None
    now = first + minutes * MINUTE
    passed = [first]
    for at in schedule.upcoming(expression, zone, first):
        if at > now:
            break
        passed.append(at)
    found = due.judge(expression, zone, first, now, deadline)
    assert found.next_due == schedule.first(expression, zone, now)
    fresh = (now - passed[-1]).total_seconds() <= deadline
    assert found.start == (passed[-1] if fresh else None)
    assert found.missed == min(len(passed) - fresh, due.MOST_COUNTED)
    assert found.missed_from == (passed[0] if found.missed else None)

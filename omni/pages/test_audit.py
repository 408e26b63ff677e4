"""The search of the audit page by time: what happened then is found, with few questions, whatever the numbers are."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from consensus import gate
from omni.kernel.models import ORDINALS, Event
from omni.pages import audit
from omni.testing.factories import make_user

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]
BEGAN = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)
EACH = dt.timedelta(seconds=10)


@pytest.fixture
def console(fence: None) -> Client:
    client = Client()
    client.force_login(make_user("boss", superuser=True), backend="accounts.console_login.ConsoleBackend")
    return client


def happened(count: int, *, first: int = 1_000_000, apart: int = 7_919) -> None:
    """So many events, ten seconds apart, whose numbers have gaps."""
    rows = [
        Event(key=(first + n * apart) * ORDINALS, at=BEGAN + n * EACH, epoch=1, claim="", member="m", actor="system:x",
              cause="", request_id="", kind=f"test.n{n:04d}", object_type="app", object_id=1)
        for n in range(count)
    ]  # fmt: skip
    with gate.maintenance("test"):
        Event.objects.all().delete()
        Event.objects.bulk_create(rows)


def found(console: Client, query: str) -> list[int]:
    page = console.get(f"/admin/events/?{query}")
    assert page.status_code == 200
    return [int(one["event"].kind.removeprefix("test.n")) for one in page.context["events"]]


def test_a_stretch_of_time_is_found_in_the_middle_of_a_long_record(console):
    happened(3000)
    with CaptureQueriesContext(
        connection,
    ) as asked:
        numbers = found(console, "from=2026-05-04T14:00&until=2026-05-04T14:02")
    assert numbers == list(range(737, 719, -1)), "14:02 is over when its minute is"
    assert len(asked) < 30
    assert found(console, "until=2026-05-04T12:00:30")[:5] == [3, 2, 1, 0]
    assert found(console, "from=2026-05-04T14:00:00Z&until=2026-05-04T16:00:10%2B02:00") == [721, 720]
    assert found(console, "from=2027-01-01T00:00") == found(console, "until=2026-01-01T00:00") == []


def test_pages_of_a_stretch_follow_each_other_and_end(console):
    happened(200)
    query, numbers = "from=2026-05-04T12:01&until=2026-05-04T12:20", []
    page = console.get(f"/admin/events/?{query}")
    numbers += [one["event"].kind for one in page.context["events"]]
    while page.context["older"]:
        page = console.get(f"/admin/events/?{query}&before={page.context['older']}")
        numbers += [one["event"].kind for one in page.context["events"]]
    assert numbers == [f"test.n{n:04d}" for n in range(125, 5, -1)]


def test_a_time_before_the_stretch_that_is_looked_at_offers_no_more(console, monkeypatch):
    monkeypatch.setattr(audit, "_STRETCH", 50)
    happened(200)
    page = console.get("/admin/events/?from=2026-05-04T12:32&kind=nothing")
    assert (page.context["older"], page.context["stopped"]) == (None, False)
    page = console.get("/admin/events/?from=2026-05-04T12:01&kind=nothing")
    assert page.context["older"] is not None


def test_what_is_no_time_is_said_to_be_none(console):
    assert "is no time" in console.get("/admin/events/?from=yesterday").content.decode()


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_times(text: str):
    found = audit.moment(text)
    assert found is None or found.tzinfo is dt.UTC

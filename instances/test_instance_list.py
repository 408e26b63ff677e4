"""The list of an app's instances shows the times that the rows hold."""

from __future__ import annotations

import datetime as dt

import pytest
from django.test import Client

from omni.kernel import clock
from omni.testing.factories import make_app, make_instance, make_org, make_token

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]


@pytest.mark.parametrize("microsecond", [0, 120, 999_999])
def test_times_are_rfc_3339_in_utc_to_the_microsecond(microsecond: int) -> None:
    org = make_org()
    app = make_app(org)
    started = (clock.now() - dt.timedelta(minutes=5)).replace(microsecond=microsecond)
    row = make_instance(app, status="running", started_at=started)
    headers = {"Authorization": f"Bearer {make_token(org)}"}
    (item,) = Client().get(f"/app/{app.pk}/instances", headers=headers).json()["items"]
    assert item["started_at"] == clock.rfc3339(started)
    assert item["created_at"] == clock.rfc3339(row.created_at)
    assert item["finished_at"] is None
    assert 299 < item["uptime_s"] < 320

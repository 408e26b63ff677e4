"""One request id from a caller's request through the controller to what the node is told."""

from __future__ import annotations

import pytest

from instances import assignments
from instances.conftest import Platform
from instances.models import Deployment
from omni.kernel.models import Event

pytestmark = [pytest.mark.slow, pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


def test_what_follows_from_a_request_carries_its_id(platform: Platform) -> None:
    app = platform.app()
    answer = platform.call("POST", f"/app/{app.pk}/release/v1/deploy", **{"Request-Id": "my-own-request"})
    assert answer.status_code == 202, answer.content
    platform.settle()
    assert Deployment.objects.get(app=app).request_id == "my-own-request"
    placed = Event.objects.filter(app_id=app.pk, actor="system:controller")
    assert placed.exists()
    assert set(placed.values_list("request_id", flat=True)) == {"my-own-request"}

    told = [one for name in platform.node_names for one in assignments.of_node(name) if one["app_id"] == app.pk]
    assert [one["request_id"] for one in told] == ["my-own-request"]

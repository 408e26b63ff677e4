"""An instance that leaves ends when every ingress has said that nothing is open there, and not before."""

from __future__ import annotations

import pytest

from agent.plain import from_json
from agent.routing import Routes
from consensus.gate import maintenance
from instances.assignments import of_node
from instances.conftest import Platform, call, node_token
from instances.models import Instance, Node
from omni.kernel import clock
from omni.kernel.models import Event
from omni.testing.factories import make_instance

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


@pytest.fixture
def serving(platform: Platform) -> Instance:
    """One healthy instance; the first and the second node have an ingress."""
    app = platform.app(desired_state="running")
    with maintenance("test"):
        Node.objects.filter(name__in=platform.node_names[:2]).update(ingress=True)
    return make_instance(
        app, node=Node.objects.get(name=platform.node_names[2]), status="running", health="healthy", on_node=True,
        address="127.0.0.1:20001", healthy_at=clock.now(),
    )  # fmt: skip


def told(row: Instance) -> dict[str, object]:
    (mine,) = [entry for entry in of_node(row.node.name) if entry["id"] == row.pk]
    return {name: mine[name] for name in ("drain_s", "drain_max_s", "drained")}


def says_drained(node: str, *ids: int) -> int:
    answer = call(node_token(node), "POST", "/agent/drained", {"node": node, "instances": list(ids)})
    assert answer.status_code == 200, answer.content
    return int(answer.json()["acked"])


def stop(row: Instance) -> None:
    with maintenance("test"):
        Instance.objects.filter(pk=row.pk).update(desired="stop")


def test_it_waits_for_every_ingress(platform, serving):
    first, second, third = platform.node_names
    assert told(serving)["drained"] is False
    stop(serving)
    assert told(serving) == {"drain_s": 2.5, "drain_max_s": 30.0, "drained": False}
    assert says_drained(first, serving.pk) == 1
    assert told(serving)["drained"] is False
    assert says_drained(third, serving.pk) == 1  # has no ingress that anybody knows of: counts for nothing
    assert told(serving)["drained"] is False
    assert says_drained(second, serving.pk) == 1
    assert told(serving)["drained"] is True
    assert Event.objects.filter(kind="instance.drained", object_id=serving.pk).count() == 3


def test_a_lost_ingress_is_waited_for_no_longer(platform, serving):
    first, second, _ = platform.node_names
    stop(serving)
    says_drained(first, serving.pk)
    with maintenance("test"):
        Node.objects.filter(name=second).update(status="lost")
    assert told(serving)["drained"] is True


def test_without_any_ingress_the_time_alone_counts(platform, serving):
    with maintenance("test"):
        Node.objects.update(ingress=False)
    stop(serving)
    assert told(serving) == {"drain_s": 2.5, "drain_max_s": 2.5, "drained": False}


def test_a_repeated_report_changes_nothing(platform, serving):
    first = platform.node_names[0]
    stop(serving)
    says_drained(first, serving.pk)
    before = Event.objects.count()
    assert says_drained(first, serving.pk) == 0
    assert Event.objects.count() == before


def test_one_that_nobody_wants_to_end_cannot_be_drained(platform, serving):
    assert says_drained(platform.node_names[0], serving.pk, 424242) == 0


def test_what_was_said_before_a_restart_counts_for_that_restart_only(platform, serving):
    first, second, _ = platform.node_names
    with maintenance("test"):
        Instance.objects.filter(pk=serving.pk).update(generation=1)
    says_drained(first, serving.pk)
    says_drained(second, serving.pk)
    assert told(serving)["drained"] is True
    with maintenance("test"):
        Instance.objects.filter(pk=serving.pk).update(observed_generation=1)
    stop(serving)
    assert told(serving)["drained"] is False


def test_ingresses_are_asked_about_what_leaves_and_send_it_nothing_new(platform, serving):
    app, node = serving.app, platform.node_names[0]
    host = f"{app.hostname}.localhost"

    def seen() -> tuple[list[int], int]:
        answer = call(node_token(node), "GET", "/agent/routes?index=0&wait=0")
        found = from_json(Routes, answer.json())
        return found.leaving, len(next(route for route in found.hosts if route.host == host).targets)

    assert seen() == ([], 1)
    answer = platform.call("POST", f"/app/{app.pk}/instances/{serving.pk}/restart")
    assert answer.status_code == 202, answer.content
    assert seen() == ([serving.pk], 0)
    platform.report(serving, "running", "healthy", generation=1, address="127.0.0.1:1")
    assert seen() == ([], 1)
    assert platform.call("POST", f"/app/{app.pk}/instances/{serving.pk}/stop").status_code == 202
    assert seen()[0] == [serving.pk]

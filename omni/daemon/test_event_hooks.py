"""Event webhooks: each event that a hook wants, once and in order, for as long as its receiver answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from accounts import event_hooks
from accounts.models import EventHook, EventHookProgress
from omni.daemon.event_hooks import EventHooks
from omni.kernel.models import Event
from omni.outgoing.webhooks import Endpoint, Message, Outcome
from omni.testing.factories import make_org, make_token

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]

OK = Outcome(True, True, 200, "answered 200")
DOWN = Outcome(False, False, 503, "answered 503")
NEVER = Outcome(False, True, 410, "answered 410")


class Receiver:
    def __init__(self) -> None:
        self.got: list[Message] = []
        self.secrets: set[str] = set()
        self.answers: list[Outcome] = []

    def deliver(self, endpoint: Endpoint, message: Message) -> Outcome:
        self.secrets.add(endpoint.secret)
        answer = self.answers.pop(0) if self.answers else OK
        if answer.delivered:
            self.got.append(message)
        return answer

    @property
    def kinds(self) -> list[str]:
        return [message.type for message in self.got]


def call(token: str, method: str, path: str, data: Any = None) -> Any:
    body = "" if data is None else json.dumps(data)
    return Client().generic(method, path, body, content_type="application/json",
                            headers={"Authorization": f"Bearer {token}"})  # fmt: skip


def turn(sender: EventHooks) -> None:
    """Until everything that is due was sent and settled."""
    deadline = time.monotonic() + 10
    sender.tick()
    while sender._sending and time.monotonic() < deadline:
        time.sleep(0.005)
        sender.tick()


@pytest.fixture
def happen(in_gate: Callable[..., Any]) -> Callable[..., None]:
    def record(kind: str, org_id: int | None) -> None:
        in_gate(lambda tx: tx.record(kind, "thing", 1, org_id=org_id))

    return record


def test_an_orgs_hook_is_told_of_its_orgs_events_in_order_and_once(happen: Callable[..., None]) -> None:
    org, other = make_org(), make_org()
    owner = make_token(org)
    happen("app.created", org.pk)  # before the hook
    made = call(owner, "POST", "/webhooks", {"url": "https://example.org/in", "kinds": ["app.*", "build.failed"]})
    assert made.status_code == 201, made.content
    body = made.json()
    assert body["secret"].startswith("whsec_")
    assert "secret" not in call(owner, "GET", body["links"]["self"]).json()
    for kind, where in (("app.scaled", org.pk), ("build.queued", org.pk), ("app.scaled", other.pk),
                        ("build.failed", org.pk), ("node.lost", None)):  # fmt: skip
        happen(kind, where)
    receiver = Receiver()
    turn(EventHooks(receiver.deliver))
    assert receiver.kinds == ["app.scaled", "build.failed"]
    assert receiver.secrets == {body["secret"]}
    assert receiver.got[0].id == f"evt_{receiver.got[0].data['id']}"
    turn(EventHooks(receiver.deliver))  # another leader
    assert len(receiver.got) == 2
    shown = call(owner, "GET", body["links"]["self"]).json()["delivery"]
    assert (shown["delivered"], shown["failures"], shown["status"]) == (2, 0, 200)


def test_what_was_not_taken_is_sent_again_later_under_the_same_id(happen: Callable[..., None]) -> None:
    org = make_org()
    call(make_token(org), "POST", "/webhooks", {"url": "https://example.org/in"})
    receiver, sender = Receiver(), None
    for _ in range(3):
        happen("app.scaled", org.pk)
    receiver.answers = [OK, OK, DOWN]  # the hook's own creation is the first
    sender = EventHooks(receiver.deliver)
    turn(sender)
    assert len(receiver.got) == 2
    turn(sender)
    assert len(receiver.got) == 2, "it waits"
    EventHookProgress.objects.update(next_at_us=0)
    turn(sender)
    assert [message.type for message in receiver.got] == ["webhook.created", "app.scaled", "app.scaled", "app.scaled"]
    ids = [message.id for message in receiver.got]
    assert len(set(ids)) == 4
    assert EventHookProgress.objects.get().failures == 0


def test_a_receiver_that_never_wants_more_is_given_up_and_can_be_begun_again(happen: Callable[..., None]) -> None:
    org = make_org()
    owner = make_token(org)
    path = call(owner, "POST", "/webhooks", {"url": "https://example.org/in"}).json()["links"]["self"]
    receiver = Receiver()
    receiver.answers = [NEVER]
    turn(EventHooks(receiver.deliver))
    shown = call(owner, "GET", path).json()
    assert (shown["active"], shown["why_inactive"]) == (False, "after 1 tries: answered 410")
    assert Event.objects.filter(kind="webhook.given_up", org_id=org.pk).exists()
    happen("app.scaled", org.pk)
    turn(EventHooks(receiver.deliver))
    assert receiver.got == []
    assert call(owner, "PATCH", path, {"active": True}).json()["why_inactive"] is None
    turn(EventHooks(receiver.deliver))
    assert receiver.kinds == ["webhook.created", "webhook.given_up", "app.scaled", "webhook.updated"]


def test_a_hook_is_its_orgs_alone_and_the_platforms_an_operators(happen: Callable[..., None]) -> None:
    org = make_org()
    owner, stranger, operator = make_token(org), make_token(make_org()), make_token(make_org(), platform=True)
    viewer = make_token(org, role="viewer")
    path = call(owner, "POST", "/webhooks", {"url": "https://example.org/in"}).json()["links"]["self"]
    assert call(stranger, "GET", path).status_code == 404
    assert call(stranger, "DELETE", path).status_code == 404
    assert call(viewer, "POST", "/webhooks", {"url": "https://example.org/in"}).status_code == 403
    assert call(owner, "POST", "/webhooks", {"url": "https://example.org/in", "org": None}).status_code == 403
    assert call(owner, "POST", "/webhooks", {"url": "ftp://example.org/in"}).status_code == 422
    whole = call(operator, "POST", "/webhooks", {"url": "https://example.org/all", "org": None, "kinds": ["node.*"]})
    assert whole.status_code == 201
    assert call(owner, "GET", whole.json()["links"]["self"]).status_code == 404
    happen("node.lost", None)
    receiver = Receiver()
    turn(EventHooks(receiver.deliver))
    assert "node.lost" in receiver.kinds
    assert call(owner, "DELETE", path).status_code == 204
    assert EventHook.objects.count() == 1


def test_kinds_choose_by_name_or_family() -> None:
    assert event_hooks.tells([], "app.created")
    assert event_hooks.tells(["app.*"], "app.created")
    assert not event_hooks.tells(["app.*"], "application.created")
    assert not event_hooks.tells(["app.created"], "app.created_again")

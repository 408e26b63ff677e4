"""The alarm: a dead database is told once, by whoever was elected, and is in the database when it is back."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from consensus import gate
from consensus.lease import ConsensusUnavailable
from omni.daemon.alarm import Alarm, OwnFile
from omni.kernel import clock
from omni.kernel.config_keys import Alerts
from omni.kernel.models import Event
from omni.outgoing import mail, webhooks
from omni.outgoing.webhooks import Outcome
from omni.testing.factories import make_service
from services import outage, outcomes, sender
from services.models import Alert, Notice, Silence
from services.outage import SERVICE, Order

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]
NOW = dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC)


@dataclass
class Shared:
    """The replicated state, as two members see it."""

    record: dict[str, str] | None = None
    away: bool = False

    def read(self) -> Any:
        if self.away:
            raise ConsensusUnavailable("no leader")
        return self.record

    def write(self, record: dict[str, str]) -> None:
        if self.away:
            raise ConsensusUnavailable("no leader")
        self.record = record


@dataclass
class World:
    """Who is elected, for how long the database has been silent, who was told."""

    shared: Shared = field(default_factory=Shared)
    silent_s: float = 0.0
    terms: dict[str, int | None] = field(default_factory=lambda: {"a": 1, "b": None})
    posted: list[webhooks.Message] = field(default_factory=list)
    mailed: list[mail.Mail] = field(default_factory=list)
    refuses: bool = False

    def __post_init__(self) -> None:
        self.alarms = {name: Alarm(self.shared, lambda name=name: self.terms[name], lambda: self.silent_s)
                       for name in self.terms}  # fmt: skip

    def take(self, _to: Any, message: webhooks.Message) -> Outcome:
        if self.refuses:
            return Outcome(False, False, 500, "answered 500")
        self.posted.append(message)
        return Outcome(True, True, 200, "answered 200")

    def dies(self, looks: int = 4) -> None:
        self.silent_s = 30.0
        for _ in range(looks):
            for alarm in self.alarms.values():
                alarm.tick()

    def lives(self, member: str = "a") -> None:
        self.silent_s = 0.0
        for alarm in self.alarms.values():
            alarm.tick()
        self.alarms[member].keep()


@pytest.fixture
def world(in_gate: None, monkeypatch: pytest.MonkeyPatch) -> World:
    told = Alerts(webhook_url="http://10.0.0.5/hook", mail_to="ops@example.com", smtp_host="10.0.0.6")
    monkeypatch.setattr(settings, "CONFIG", settings.CONFIG.model_copy(update={"alerts": told}))
    found = World()
    monkeypatch.setattr(webhooks, "deliver", found.take)
    monkeypatch.setattr(mail, "send", lambda _server, one: found.mailed.append(one))
    make_service(SERVICE, source="platform", check={"type": "part", "part": "database"}, severity="critical")
    found.alarms["a"].keep()
    return found


def test_a_dead_database_is_told_once_over_every_channel_without_it(world: World, django_assert_num_queries):
    with django_assert_num_queries(0):
        world.dies(looks=9)
    (message,), (letter,) = world.posted, world.mailed
    assert (message.type, message.data["service"]["name"], message.data["id"]) == ("alert.opened", SERVICE, None)
    assert (message.id, letter.id) == (f"{message.data['key']}-opened", message.id)
    assert letter.subject == "[critical] platform:database open"


def test_what_was_told_is_in_the_database_when_it_is_back_and_is_told_no_second_time(world: World):
    world.dies()
    world.lives()
    alert = Alert.objects.get()
    assert (alert.status, alert.told_as) == ("open", world.posted[0].data["key"])
    assert {(one.kind, one.channel, one.status) for one in Notice.objects.all()} == {
        ("opened", "webhook", "sent"), ("opened", "mail", "sent")}  # fmt: skip
    assert outcomes.unannounced(clock.now()) == []
    assert set(Event.objects.values_list("kind", flat=True)) >= {"alert.opened", "notice.sent"}
    world.alarms["a"].keep()
    world.lives()
    assert Alert.objects.count() == 1
    world.dies()
    assert len(world.posted) == 1, "the alert is open still: it was told"


def test_a_leader_that_is_elected_without_the_database_tells_nobody_twice(world: World):
    world.dies()
    world.terms |= {"a": None, "b": 2}
    world.dies()
    assert len(world.posted) == len(world.mailed) == 1
    world.lives("b")
    assert Alert.objects.get().notices.count() == 2


def test_a_leader_that_died_with_the_database_is_replaced_by_one_that_tells(world: World):
    world.terms |= {"a": None, "b": 2}
    world.dies()
    assert len(world.posted) == len(world.mailed) == 1


def test_a_channel_that_took_nothing_is_tried_again_when_the_database_is_back_under_the_same_id(world: World):
    world.refuses = True
    world.dies()
    assert (world.posted, len(world.mailed)) == ([], 1)
    world.refuses = False
    world.lives()
    alert = Alert.objects.get()
    assert {(one.channel, one.status) for one in alert.notices.all()} == {("mail", "sent"), ("webhook", "pending")}
    sender.Sender("webhook").tick()
    assert [message.id for message in world.posted] == [world.mailed[0].id]


def test_a_silence_or_a_maintenance_holds_without_the_database_too(world: World):
    later = clock.now() + dt.timedelta(hours=1)
    hush = Silence(pattern="platform:*", reason="moving", starts_at=clock.now(), ends_at=later, created_by="x",
                   created_at=clock.now())  # fmt: skip
    with gate.maintenance("test"):
        hush.save()
    world.alarms["a"]._kept_at = float("-inf")
    world.alarms["a"].keep()
    world.dies()
    assert world.posted == []


def test_a_short_silence_and_a_daemon_that_stood_still_are_no_dead_database(world: World):
    world.silent_s = outage.DEAD_S - 0.1
    for _ in range(9):
        world.alarms["a"].tick()
    world.dies(looks=2)
    assert world.posted == []


def test_what_cannot_be_written_down_is_not_told(world: World):
    world.shared.away = True
    world.dies()
    assert world.posted == []
    world.shared.away = False
    world.dies()
    assert len(world.posted) == 1


def test_the_only_member_keeps_its_order_in_a_file(tmp_path):
    store = OwnFile(tmp_path / "alarm.json")
    assert outage.of_record(store.read()) is None
    order = Order("dead", "2026-05-04T03:02:01Z", 7, told=("mail",))
    store.write(order.record())
    assert outage.of_record(OwnFile(tmp_path / "alarm.json").read()) == order


@given(st.sampled_from(["armed", "dead"]), st.floats(0, 1e6), st.integers(-5000, 5000))
def test_an_order_that_has_begun_keeps_its_key(state: Any, silent_s: float, until_s: int):
    order = Order(state, str(clock.rfc3339(NOW + dt.timedelta(seconds=until_s))), 1)
    once = outage.begun(order, silent_s, NOW)
    again = outage.begun(once, silent_s + 5, NOW + dt.timedelta(seconds=5))
    if once.state == "dead":
        assert again == once
        assert outage.of_record(once.record()) == once
    else:
        assert silent_s < outage.DEAD_S or until_s > 0

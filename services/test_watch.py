"""The leader's watch, from what vantage points say to rows, alerts, notices and remedies."""

from __future__ import annotations

import datetime as dt

import pytest
from django.conf import settings
from django.db import OperationalError

from omni.kernel import clock
from omni.kernel.config_keys import Alerts
from omni.kernel.models import Event
from omni.outgoing import webhooks
from omni.outgoing.webhooks import Outcome
from omni.testing.factories import make_service
from services import board, sender, standings, watched
from services.looking import PartSeen
from services.models import Alert, Notice, Service

pytestmark = [pytest.mark.database, pytest.mark.django_db(databases=["default", "telemetry"])]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[webhooks.Message]:
    """What the configured receiver gets."""
    had: list[webhooks.Message] = []
    given = Alerts(webhook_url="http://10.0.0.5/hook", group_s=10.0)
    monkeypatch.setattr(settings, "CONFIG", settings.CONFIG.model_copy(update={"alerts": given}))
    monkeypatch.setattr(webhooks, "deliver", lambda _to, message: had.append(message) or Outcome(True, True, 200, "ok"))
    return had


def state(service: Service) -> str:
    service.refresh_from_db()
    return service.state


def test_a_majority_decides_and_one_node_does_not(leader):
    service = make_service("db")
    leader.say((service, "passing"))
    assert state(service) == "healthy"
    leader.say((service, "failing"), nodes=leader.cluster.nodes[:1])
    assert (state(service), service.reason) == ("degraded", "minority")
    assert not Alert.objects.exists()
    leader.say((service, "failing"), nodes=leader.cluster.nodes[1:2], detail="connection refused")
    assert state(service) == "unhealthy"
    assert "connection refused" in service.detail
    assert service.votes == {"passing": 1, "warning": 0, "failing": 2, "unknown": 0}
    assert Alert.objects.get().service_name == "db"


def test_each_change_is_one_numbered_event_and_a_quiet_tick_writes_nothing(leader, django_assert_max_num_queries):
    service = make_service("db")
    leader.say((service, "passing"))
    before = Event.objects.count()
    assert Event.objects.filter(kind="service.state_changed").count() == 1
    leader.cluster.say()
    with django_assert_max_num_queries(6):
        leader.tick()
    assert Event.objects.count() == before


@pytest.mark.slow
def test_a_dead_database_is_one_alert_and_its_dependents_are_named_in_it(leader, told):
    database = make_service("database")
    apps = [make_service(f"app-{n}", depends_on=["database"]) for n in range(4)]
    everything = [database, *apps]
    leader.say(*[(one, "passing") for one in everything])
    leader.say(*[(one, "failing") for one in apps])  # they notice first
    leader.say((database, "failing"))
    leader.tick(20)
    alert = Alert.objects.get()
    assert alert.service_name == "database"
    assert alert.affected == [one.name for one in apps]
    sender.Sender("webhook").tick()
    leader.say(*[(one, "passing") for one in everything])
    sender.Sender("webhook").tick()
    alert.refresh_from_db()
    assert (alert.status, alert.resolution, alert.active_key) == ("resolved", "recovered", None)
    assert [message.type for message in told] == ["alert.opened", "alert.resolved"]
    assert len({message.id for message in told}) == 2


def test_a_new_leader_opens_nothing_twice_and_forgets_nothing(leader, told):
    service = make_service("db")
    leader.say((service, "failing"))
    since = Service.objects.get(pk=service.pk).state_since
    leader.begin()
    leader.tick()
    leader.say((service, "failing"))
    assert (Alert.objects.count(), Service.objects.get(pk=service.pk).state_since) == (1, since)
    sender.Sender("webhook").tick()
    sender.Sender("webhook").tick()
    assert len(told) == 1


def test_silence_of_all_nodes_is_unknown_and_resolves_nothing(leader, monkeypatch):
    service = make_service("db")
    leader.say((service, "failing"))
    monkeypatch.setattr(board, "SILENT_AFTER_S", 0.0)
    leader.tick()
    assert state(service) == "unhealthy"
    leader.tick(30)
    assert state(service) == "unknown"
    assert Alert.objects.get().status == "open"


def test_failures_within_the_start_period_do_not_count(leader):
    service = make_service("slow", start_period_s=600.0)
    leader.say((service, "failing"))
    assert (state(service), service.reason) == ("unknown", "starting") or service.state == "unknown"
    leader.tick(700)
    leader.say((service, "failing"))
    assert state(service) == "unhealthy"


def test_maintenance_resolves_and_ends_by_itself(leader):
    service = make_service("db")
    leader.say((service, "failing"))
    until = (clock.now() + dt.timedelta(seconds=60)).isoformat()
    answer = leader.cluster.call("PATCH", "/services/db", {"maintenance": True, "maintenance_until": until})
    assert answer.status_code == 200, answer.content
    leader.tick()
    assert state(service) == "maintenance"
    assert Alert.objects.get().resolution == "maintenance"
    leader.tick(120)
    leader.say((service, "failing"))
    service.refresh_from_db()
    assert (service.maintenance, service.state) == (False, "unhealthy")
    assert Alert.objects.filter(status="open").count() == 1


def test_a_silenced_alert_is_opened_and_told_only_when_the_silence_ends(leader, told):
    service = make_service("db-main")
    ends = (clock.now() + dt.timedelta(seconds=100)).isoformat()
    made = leader.cluster.call("POST", "/silences", {"pattern": "db-*", "reason": "moving house", "ends_at": ends})
    assert made.status_code == 201, made.content
    leader.say((service, "failing"))
    sender.Sender("webhook").tick()
    shown = leader.cluster.call("GET", "/alerts?status=active").json()["items"]
    assert [(one["service"]["name"], one["silenced"]) for one in shown] == [("db-main", True)]
    assert told == []
    leader.tick(200)
    sender.Sender("webhook").tick()
    assert [message.type for message in told] == ["alert.opened"]


def test_an_alert_is_acknowledged_once_and_resolves_all_the_same(leader):
    service = make_service("db")
    leader.say((service, "failing"))
    (alert,) = leader.cluster.call("GET", "/alerts").json()["items"]
    done = leader.cluster.call("POST", f"/alerts/{alert['id']}/ack", {"note": "on it"})
    assert (done.status_code, done.json()["status"], done.json()["note"]) == (200, "acknowledged", "on it")
    again = leader.cluster.call("POST", f"/alerts/{alert['id']}/ack")
    assert (again.status_code, again.json()["code"]) == (409, "transition_refused")
    leader.say((service, "passing"))
    assert leader.cluster.call("GET", f"/alerts/{alert['id']}").json()["status"] == "resolved"


def test_a_silence_can_be_made_from_an_alert_and_ended(leader):
    service = make_service("db")
    leader.say((service, "failing"))
    alert = Alert.objects.get()
    body = {"reason": "known", "ends_at": "2100-01-01T00:00:00Z"}
    made = leader.cluster.call("POST", f"/alerts/{alert.pk}/silence", body)
    assert (made.status_code, made.json()["pattern"]) == (201, "db")
    assert leader.cluster.call("DELETE", f"/silences/{made.json()['id']}").status_code == 200
    again = leader.cluster.call("DELETE", f"/silences/{made.json()['id']}")
    assert (again.status_code, again.json()["code"]) == (409, "silence_ended")
    bad = leader.cluster.call("POST", "/silences", {"pattern": "*", "reason": "x", "ends_at": "2000-01-01T00:00:00Z"})
    assert bad.status_code == 422


@pytest.mark.slow
def test_a_removed_service_resolves_its_alert(leader):
    service = make_service("db")
    leader.say((service, "failing"))
    assert leader.cluster.call("DELETE", "/services/db").status_code == 204
    leader.tick()
    assert Alert.objects.get().resolution == "deleted"


def test_a_notice_that_is_not_taken_is_tried_again_later_and_given_up(leader, told, monkeypatch):
    service = make_service("db")
    leader.say((service, "failing"))
    answers = [Outcome(False, False, 500, "answered 500"), Outcome(True, True, 200, "answered 200")]
    monkeypatch.setattr(webhooks, "deliver", lambda _to, _message: answers.pop(0))
    send = sender.Sender("webhook")
    send.tick()
    send.tick()  # not yet due
    assert len(answers) == 1
    leader.offset_s += 10
    send.tick()
    notice = Notice.objects.get()
    assert (notice.status, notice.attempts, notice.next_at) == ("sent", 2, None)


def test_the_platforms_own_parts_are_services_of_the_same_kind(leader):
    spec = {"type": "part", "part": "broker"}
    service = make_service("platform:broker", source="platform", check=spec)
    leader.parts = {"broker": PartSeen("passing", "answers")}
    leader.tick()
    leader.tick()
    assert state(service) == "healthy"
    leader.parts = {"broker": PartSeen("failing", "TimeoutError")}
    for _ in range(3):
        leader.tick()
    assert state(service) == "unhealthy"
    assert Alert.objects.get().service_name == "platform:broker"
    leader.parts = {"broker": PartSeen("passing", "answers")}
    leader.tick()  # one good answer does not turn it, and its words do not contradict it
    assert leader.watch._known[service.pk].memory.detail.endswith("TimeoutError")


def test_a_heartbeat_that_stays_away_is_unhealthy_and_comes_back(leader):
    service = make_service("job", check={"type": "heartbeat"}, interval_s=10.0, unhealthy_threshold=2)
    leader.tick()
    assert leader.cluster.call("POST", "/services/job/heartbeat").status_code == 200
    leader.tick()
    assert state(service) == "healthy"
    leader.tick(15)
    assert state(service) == "healthy"
    leader.tick(15)
    assert state(service) == "unhealthy"
    assert (
        leader.cluster.call("POST", "/services/job/heartbeat", {"ok": False, "detail": "disk full"}).status_code == 200
    )
    leader.tick()
    assert state(service) == "unhealthy"
    leader.cluster.call("POST", "/services/job/heartbeat")
    leader.tick()
    assert state(service) == "healthy"


def test_a_new_leader_gives_heartbeats_the_time_in_which_it_could_not_hear_them(leader):
    service = make_service("job", check={"type": "heartbeat"}, interval_s=10.0, unhealthy_threshold=2)
    leader.tick()
    leader.cluster.call("POST", "/services/job/heartbeat")
    leader.tick()
    leader.begin()
    leader.tick(100)  # nobody led for so long
    assert state(service) == "healthy"
    leader.tick(30)
    assert state(service) == "unhealthy"


def test_with_the_database_away_it_watches_on_and_writes_later(leader, monkeypatch):
    service = make_service("db")
    leader.say((service, "passing"))
    with monkeypatch.context() as patch:

        def gone() -> None:
            raise OperationalError(2002, "gone")

        patch.setattr(watched, "tag", gone)
        leader.cluster.say((service.pk, "failing"))
        leader.tick()
        assert state(service) == "healthy"
        assert standings.latest()["db"]["state"] == "unhealthy"
        assert leader.watch.tick() == 2.0, "so that what it knows is written soon after the database is back"
    leader.tick()
    assert state(service) == "unhealthy"
    monkeypatch.setattr(standings, "FILE_EVERY_S", 0.0)
    leader.tick()
    assert standings.last_written()["db"]["state"] == "unhealthy"


# -- remedies

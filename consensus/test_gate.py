"""The gate's rules, on a real database (SQLite and MariaDB)."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError, connection, transaction

from accounts.models import Org
from accounts.services import create_org
from consensus import fence, gate
from consensus.fake import FakeLease
from consensus.lease import NoLease
from consensus.models import Fence
from consensus.write_guard import UngatedWrite, written_table
from omni.kernel.context import system
from omni.kernel.errors import NoLeader, NotLeader
from omni.kernel.models import Event
from omni.testing.factories import make_org

pytestmark = [pytest.mark.django_db(databases=["default", "telemetry"]), pytest.mark.usefixtures("fence")]
ME = system("test")


def _create(name: str) -> tuple[Org, int]:
    return gate.run(lambda tx: create_org(tx, name=name), actor=ME, cause="test")


def test_a_write_outside_the_gate_is_refused() -> None:
    org = make_org()
    with pytest.raises(UngatedWrite), transaction.atomic():
        Org.objects.filter(pk=org.pk).update(description="x")
    with pytest.raises(UngatedWrite), transaction.atomic():
        org.delete()
    with pytest.raises(UngatedWrite), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO kernel_event (key) VALUES (1)")


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("SELECT 1", None),
        ("  insert into apps_app (id) values (1)", "apps_app"),
        ("INSERT OR IGNORE INTO `apps_app` VALUES (1)", "apps_app"),
        ('UPDATE "apps_app" SET x = 1', "apps_app"),
        ("DELETE FROM apps_app", "apps_app"),
        ("REPLACE INTO apps_app VALUES (1)", "apps_app"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", None),
        ("WITH x AS (SELECT 1) DELETE FROM apps_app", "?"),
        ("TRUNCATE apps_app", "apps_app"),
    ],
)
def test_the_guard_knows_which_table_a_statement_writes(sql: str, table: str | None) -> None:
    assert written_table(sql) == table


def test_write_indexes_have_no_gap_and_each_carries_its_event() -> None:
    first, second = _create("one")[1], _create("two")[1]
    assert second == first + 1
    assert [event.write_index for event in Event.objects.order_by("key")] == [first, second]


def test_a_verb_that_raises_leaves_nothing_and_uses_no_index() -> None:
    before = fence.write_index()

    def verb(tx: gate.Transaction) -> None:
        create_org(tx, name="half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        gate.run(verb, actor=ME, cause="test")
    assert not Org.objects.filter(name="half").exists()
    assert fence.write_index() == before


def test_a_deposed_leader_commits_nothing() -> None:
    Fence.objects.update(epoch=2)  # somebody claimed after our lease was granted under epoch 1
    with pytest.raises(NotLeader):
        _create("late")
    assert not Org.objects.filter(name="late").exists()


def test_a_follower_does_not_even_begin(lease: FakeLease) -> None:
    lease.lose("127.0.0.1:8000")
    with pytest.raises(NotLeader) as refused:
        _create("follower")
    assert refused.value.leader == "127.0.0.1:8000"
    lease.fail()
    with pytest.raises(NoLeader):
        _create("nobody")


def test_a_tick_that_began_under_the_old_term_commits_nothing_under_the_new_one(lease: FakeLease) -> None:
    """Elected again at once: the lease is held, the fence is ours, but what the tick saw is from before."""
    refusals: list[BaseException] = []
    begun, elected_again = threading.Event(), threading.Event()

    def tick() -> None:
        gate.pin(1)
        begun.set()
        elected_again.wait(10)
        try:
            _create("late")
        except NotLeader as refusal:
            refusals.append(refusal)
        finally:
            connection.close()

    old = threading.Thread(target=tick)
    old.start()
    assert begun.wait(10)
    lease.hold(2)
    elected_again.set()
    old.join(10)
    assert len(refusals) == 1
    assert not Org.objects.filter(name="late").exists()


def test_a_management_command_cannot_commit() -> None:
    gate.configure(NoLease(), "127.0.0.1-8000")
    with pytest.raises(NoLeader, match="HTTP"):
        _create("by-hand")
    assert not Org.objects.filter(name="by-hand").exists()


def test_a_rehearsal_keeps_its_result_and_undoes_its_writes() -> None:
    before = fence.write_index()
    org = gate.rehearse(lambda tx: create_org(tx, name="dry"), actor=ME, cause="test")
    assert org.pk is not None
    assert not Org.objects.filter(name="dry").exists()
    assert fence.write_index() == before


def test_a_verb_that_changes_nothing_takes_no_index() -> None:
    before = fence.write_index()
    _, index = gate.run(lambda tx: None, actor=ME, cause="test")
    assert index == before == fence.write_index()


def test_an_effect_that_fails_does_not_deny_what_was_committed() -> None:
    def effect() -> None:
        raise OperationalError(2006, "gone")

    def verb(tx: gate.Transaction) -> Org:
        tx.after_commit.append(effect)
        return create_org(tx, name="acme")

    org, index = gate.run(verb, actor=system("test"), cause="test")
    assert index == fence.write_index()
    assert Org.objects.filter(pk=org.pk).exists()


def test_a_verb_that_writes_without_an_event_is_a_bug() -> None:
    org = make_org()

    def verb(tx: gate.Transaction) -> None:
        Org.objects.filter(pk=org.pk).update(description="silent")

    with pytest.raises(RuntimeError, match="no event"):
        gate.run(verb, actor=ME, cause="test")


def test_the_gate_must_be_outermost() -> None:
    def verb(tx: gate.Transaction) -> None:
        _create("inner")

    with pytest.raises(RuntimeError, match="outermost"):
        gate.run(verb, actor=ME, cause="test")


def test_a_whole_transaction_is_repeated_after_a_deadlock() -> None:
    tries: list[int] = []

    def verb(tx: gate.Transaction) -> Org:
        tries.append(1)
        if len(tries) < 3:
            raise OperationalError(1213, "Deadlock found")
        return create_org(tx, name=f"try-{len(tries)}")

    org, _ = gate.run(verb, actor=ME, cause="test")
    assert org.name == "try-3"
    assert len(tries) == 3


def test_a_claim_raises_the_epoch_and_another_clusters_is_refused(lease: FakeLease) -> None:
    claim = fence.claim("test", "127.0.0.1-8001")
    assert claim.epoch == 2
    with pytest.raises(NotLeader):
        _create("old-epoch")
    lease.hold(claim.epoch)
    _create("new-epoch")
    with pytest.raises(fence.ForeignCluster) as foreign:
        fence.claim("other", "127.0.0.1-9000")
    assert {foreign.value.theirs, foreign.value.ours} == {"test", "other"}


def test_no_event_carries_an_old_epoch_after_a_claim(lease: FakeLease) -> None:
    _create("before")
    lease.hold(fence.claim("test", "m2").epoch)
    _create("after")
    epochs = list(Event.objects.order_by("key").values_list("epoch", flat=True))
    assert epochs == sorted(epochs)
    assert epochs[-1] == 2


def test_a_verb_that_decided_on_an_old_copy_runs_again_without_copies() -> None:
    runs: list[tuple[int, bool]] = []

    def verb(tx: gate.Transaction) -> Org:
        runs.append((Org.objects.filter(name="copied").count(), tx.fresh))
        if not tx.fresh:
            tx.rely_on(-1)
        return create_org(tx, name="copied")

    gate.run(verb, actor=ME, cause="test")
    assert runs == [(0, False), (0, True)]
    assert Org.objects.filter(name="copied").count() == 1
    assert Event.objects.filter(kind="org.created").count() == 1


def test_a_deposed_leader_is_told_so_whatever_it_relied_on(lease: FakeLease) -> None:
    fence.claim("test", "another")

    def verb(tx: gate.Transaction) -> Org:
        if not tx.fresh:
            tx.rely_on(0)
        return create_org(tx, name="late")

    with pytest.raises(NotLeader):
        gate.run(verb, actor=ME, cause="test")
    assert not Org.objects.filter(name="late").exists()

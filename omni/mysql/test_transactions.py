"""How a transaction begins and ends on the wire; on MariaDB only, since SQLite has a backend of its own."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import DatabaseError, Error, IntegrityError, OperationalError, connection, transaction

from accounts.models import Org
from consensus import gate
from omni.testing.factories import make_org

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "telemetry"])


@pytest.fixture(autouse=True)
def _only_mysql(db: None) -> None:
    if connection.vendor != "mysql":
        pytest.skip("this backend serves MySQL and MariaDB")


def ask(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def sent() -> int:
    """Statements that this connection has sent so far."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
        return int(cursor.fetchone()[1])


def test_a_transaction_begins_with_its_first_statement_and_ends_with_the_block() -> None:
    with transaction.atomic():
        assert ask("SELECT @@in_transaction") == 1
        with transaction.atomic():
            assert ask("SELECT @@in_transaction") == 1
    assert ask("SELECT @@in_transaction") == 0
    assert ask("SELECT @@autocommit") == 1


def test_a_block_without_statements_says_nothing() -> None:
    before = sent()
    with transaction.atomic():
        pass
    assert sent() == before + 1  # the question itself


def test_what_is_undone_was_never_there() -> None:
    def make_and_fail() -> None:
        with gate.maintenance("test"), transaction.atomic():
            make_org("gone")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_and_fail()
    assert not Org.objects.filter(name="gone").exists()
    with gate.maintenance("test"), transaction.atomic():
        kept = make_org("kept")
        with pytest.raises(IntegrityError), transaction.atomic():
            make_org("kept")
    assert Org.objects.get(name="kept").pk == kept.pk


def test_without_autocommit_each_commit_begins_anew() -> None:
    transaction.set_autocommit(False)
    try:
        with gate.maintenance("test"):
            make_org("first")
            transaction.commit()
            make_org("second")
            transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert list(Org.objects.filter(name__in=("first", "second")).values_list("name", flat=True)) == ["first"]


def test_after_a_deadlock_nothing_more_is_written_in_that_block() -> None:
    one, other = make_org("one").pk, make_org("other").pk
    outcome: list[str] = []
    ready = threading.Barrier(2, timeout=10)

    def touch(first: int, second: int) -> None:
        try:
            with gate.maintenance("test"), transaction.atomic():
                describe(first, "touched")
                ready.wait()
                describe_carelessly(second, outcome)
        except Error as error:
            outcome.append(type(error).__name__)
        finally:
            connection.close()

    threads = [threading.Thread(target=touch, args=pair) for pair in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert outcome == ["deadlock", "TransactionManagementError"]
    assert set(Org.objects.filter(pk__in=(one, other)).values_list("description", flat=True)) == {"touched"}


def describe(org: int, text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_org SET description = %s WHERE id = %s", [text, org])


def describe_carelessly(org: int, outcome: list[str]) -> None:
    """Goes on after the deadlock as if nothing had been lost."""
    try:
        describe(org, "touched")
    except OperationalError as error:
        outcome.append("deadlock" if error.args[0] == 1213 else str(error))
        describe(org, "late")


def test_a_cursor_leaves_nothing_on_the_connection_whatever_was_read() -> None:
    for taken in range(4):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1; SELECT 'a;b'; DO 0; SELECT 3")
            for _ in range(taken):
                cursor.nextset()
        assert ask("SELECT 4") == 4
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2")
        assert [cursor.fetchone(), cursor.nextset(), cursor.fetchone(), cursor.nextset()] == [(1,), 1, (2,), None]
        cursor.execute("SELECT 5")
        assert cursor.fetchone() == (5,)
        with pytest.raises(DatabaseError):
            cursor.execute("SELECT nothing")
        cursor.execute("SELECT 6")
        assert cursor.fetchall() == ((6,),)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 7; SELECT 8")  # together with the transaction's beginning
        assert (cursor.fetchone(), cursor.nextset(), cursor.fetchone()) == ((7,), 1, (8,))
        cursor.execute("SELECT 9")
        assert cursor.fetchone() == (9,)

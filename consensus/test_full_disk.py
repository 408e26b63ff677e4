"""A database without room says so, and a write that it did not take is not called unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection

from accounts.models import Org
from consensus import gate
from omni.kernel.context import system
from omni.kernel.errors import OutcomeUnknown, StorageFull


def write(tx: gate.Transaction) -> None:
    Org.objects.create(name="x", description="y" * 150, created_at=tx.at, updated_at=tx.at)
    tx.record("org.created", "org", 0)


@contextmanager
def commit_fails(error: Exception) -> Iterator[None]:
    def fail() -> None:
        raise error

    patch = pytest.MonkeyPatch()
    patch.setattr(connection, "commit", fail)
    try:
        yield
    finally:
        patch.undo()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OperationalError("database or disk is full"), StorageFull),
        (OperationalError(2013, "Lost connection to server during query"), OutcomeUnknown),
        (OperationalError(1021, "Disk full"), OutcomeUnknown),
    ],
)
def test_a_commit_without_room_is_undone_where_the_database_promises_it(
    fence: None, error: Exception, told: type[Exception]
) -> None:
    with commit_fails(error), pytest.raises(told):
        gate.run(write, actor=system("test"), cause="test")
    assert not Org.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_statement_without_room_is_told_as_such(
    fence: None, monkeypatch: pytest.MonkeyPatch, in_gate: Callable[..., Any]
) -> None:
    def full(_tx: gate.Transaction) -> None:
        raise OperationalError(1114, "The table is full")

    with pytest.raises(StorageFull):
        in_gate(full)
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA page_count")
            pages = cursor.fetchone()[0]
            cursor.execute(f"PRAGMA max_page_count = {pages}")
        try:
            with pytest.raises(StorageFull):
                in_gate(lambda tx: [write_many(tx, number) for number in range(4_000)])
        finally:
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA max_page_count = 1073741823")
    assert not Org.objects.exists()


def write_many(tx: gate.Transaction, number: int) -> None:
    Org.objects.create(name=f"x{number}", description="y" * 150, created_at=tx.at, updated_at=tx.at)
    tx.record("org.created", "org", number)

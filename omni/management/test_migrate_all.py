"""Several hosts start at once: one migrates, the others wait."""

from __future__ import annotations

import threading

import pytest
from django.core.management.base import CommandError
from django.db import connection

from omni.management.commands import migrate_all

pytestmark = pytest.mark.django_db(transaction=True)


def mysql_only() -> None:
    if connection.vendor != "mysql":
        pytest.skip("SQLite serves one host, which migrates once")


def test_two_migrations_never_run_at_once() -> None:
    mysql_only()
    order: list[str] = []
    inside, may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with migrate_all.alone(5):
            inside.set()
            may_leave.wait(10)
            order.append("first left")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    threading.Timer(0.3, may_leave.set).start()
    with migrate_all.alone(5):
        order.append("second came")
    thread.join(10)
    assert order == ["first left", "second came"]


def test_who_waits_too_long_says_why() -> None:
    mysql_only()
    with migrate_all.alone(5), pytest.raises(CommandError, match="another process"), migrate_all.alone(1):
        pass


def test_the_lock_ends_with_its_holder() -> None:
    with pytest.raises(ZeroDivisionError), migrate_all.alone(5):
        raise ZeroDivisionError
    with migrate_all.alone(1):
        pass

"""When a Django thread trusts its database connection, and what a read with `min_index` asks of it first."""

from __future__ import annotations

import pytest
from django.db import OperationalError, connection, connections

from omni.front import connections as ours

pytestmark = pytest.mark.django_db(transaction=True)


def sync_wait() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@SESSION.wsrep_sync_wait")
        return int(cursor.fetchone()[0])


def test_a_read_with_min_index_waits_for_the_cluster_and_others_do_not() -> None:
    if not getattr(connection, "mysql_is_mariadb", False):
        with ours.caught_up({"QUERY_STRING": "min_index=1"}):
            pass  # SQLite is one file: what was committed is seen
        return
    before = sync_wait()
    with ours.caught_up({"QUERY_STRING": "min_index=1"}):
        assert sync_wait() == 1
    assert sync_wait() == before
    with ours.caught_up({"QUERY_STRING": "limit=1"}):
        assert sync_wait() == before


class Connection:
    """As much of one as is looked at."""

    vendor, connection = "sqlite", object()

    def __init__(self, lost: bool) -> None:
        self.is_on_lost_server, self.closed = lost, False

    def close(self) -> None:
        self.closed = True


def test_a_connection_to_a_server_that_another_thread_lost_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    good, lost = Connection(lost=False), Connection(lost=True)
    monkeypatch.setattr(connections, "all", lambda **_: [good, lost])
    ours.check_idle()
    assert (good.closed, lost.closed) == (False, True)


def test_after_an_error_the_next_request_gets_a_new_connection_without_a_pause() -> None:
    if connection.vendor != "mysql":
        return  # a file has no connection that breaks
    ours.check_idle()
    broken = ask("SELECT CONNECTION_ID()")
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute(f"KILL {broken}")
    other.close()
    with pytest.raises(OperationalError):
        ask("SELECT 1")
    ours.check_idle()
    assert ask("SELECT CONNECTION_ID()") != broken


def ask(sql: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return int(cursor.fetchone()[0])

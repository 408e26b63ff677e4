"""Several database servers: the choice as plain logic, and two real servers that freeze, die and come back."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError
from hypothesis import given
from hypothesis import strategies as st

from omni.kernel import clock
from omni.kernel.config_databases import mysql
from omni.mysql import servers
from omni.mysql.servers import NotReady, Server, Servers
from omni.settings_databases import _entry
from omni.testing.mariadb import PrivateMariaDB

ONE, TWO, THREE = Server("h1", 3306), Server("h2", 3306), Server("h3", 3306)


class Refused(Exception):
    """What a made-up driver raises."""


def choice(*given: Server) -> Servers:
    return Servers(given or (ONE, TWO, THREE))


def connect(made: Servers, down: set[Server]) -> Server:
    def open_one(server: Server) -> str:
        if server in down:
            raise Refused(str(server))
        return "connection"

    return made.connect(open_one, Refused)[1]


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only moves when it is told to."""
    at = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: at[0])
    return at


def test_the_first_that_answers_is_used_and_kept_when_the_others_return(now: list[float]) -> None:
    made = choice()
    assert connect(made, {ONE}) == TWO
    now[0] += 3600
    assert connect(made, set()) == TWO, "moving back would only break connections"


def test_a_server_that_failed_is_not_tried_by_everybody_again(now: list[float]) -> None:
    made = choice()
    connect(made, {ONE})
    made.lost(TWO)
    now[0] += 1
    assert made.order() == [THREE, ONE, TWO]
    now[0] += servers.AVOID_S
    assert made.order() == [ONE, TWO, THREE]


def test_what_was_connected_before_a_loss_is_given_up_and_what_came_after_is_not(now: list[float]) -> None:
    made = choice()
    before = now[0]
    now[0] += 1
    made.lost(ONE)
    now[0] += 1
    assert made.is_lost(ONE, before)
    assert not made.is_lost(ONE, now[0])
    assert not made.is_lost(TWO, before)


def test_when_none_answers_the_error_is_the_last_servers(now: list[float]) -> None:
    with pytest.raises(Refused, match="h3"):
        connect(choice(), {ONE, TWO, THREE})


def test_a_round_of_silent_servers_ends(now: list[float]) -> None:
    tried: list[Server] = []

    def silent(server: Server) -> str:
        tried.append(server)
        now[0] += 2
        raise Refused

    with pytest.raises(Refused):
        choice().connect(silent, Refused)
    assert len(tried) == 2


def test_a_node_that_is_not_ready_counts_as_down() -> None:
    def open_one(server: Server) -> str:
        if server == ONE:
            raise NotReady
        return "connection"

    assert choice().connect(open_one, Refused)[1] == TWO


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO, THREE]), st.booleans()), max_size=30))
def test_every_server_is_always_in_the_order_and_one_that_works_is_always_found(
    steps: list[tuple[Server, bool]],
) -> None:
    made, down = choice(), set[Server]()
    for server, works in steps:
        (down.discard if works else down.add)(server)
        assert sorted(made.order(), key=str) == [ONE, TWO, THREE]
        if len(down) < 3:
            assert connect(made, down) not in down


# -- two real servers, which hold the same by hand


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[tuple[PrivateMariaDB, int], tuple[PrivateMariaDB, int]]]:
    made = []
    for name in ("one", "two"):
        port = free_port()
        options = ("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}")
        server = PrivateMariaDB(options=options).__enter__()
        made.append((server, port))
        server.create("omni")
        server.execute("CREATE USER 'omni'@'127.0.0.1' IDENTIFIED BY 'of-the-test'")
        server.execute("GRANT ALL ON *.* TO 'omni'@'127.0.0.1'")
        server.execute(f"CREATE TABLE omni.who SELECT '{name}' AS name")
    yield made[0], made[1]
    for server, _ in made:
        server.stop()


@pytest.fixture
def database(pair: Any, monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any) -> Iterator[Any]:
    """A connection as the settings would make it for a web worker."""
    from django.db.utils import load_backend

    (_, first), (_, second) = pair
    monkeypatch.setattr(servers, "_known", {})
    url = f"mysql://omni:of-the-test@127.0.0.1:{first},127.0.0.1:{second}/omni"
    entry = _entry(mysql(url), "web", synchronous="FULL")
    given = {"TIME_ZONE": None, "AUTOCOMMIT": True, "TEST": {}, **entry}
    made = load_backend(entry["ENGINE"]).DatabaseWrapper(given, alias="trial")
    with django_db_blocker.unblock():
        yield made
        made.close()


def who(connection: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM who")
        return str(cursor.fetchone()[0])


@pytest.mark.slow
def test_a_killed_server_costs_one_error_and_the_next_connection_goes_elsewhere(pair: Any, database: Any) -> None:
    (one, _), _ = pair
    assert who(database) == "one"
    one.stop(kill=True)
    try:
        with pytest.raises(OperationalError):
            who(database)
        assert database.is_on_lost_server
        database.close()
        assert who(database) == "two"
    finally:
        one.start()
    database.close()
    assert who(database) == "two"


@pytest.mark.slow
def test_a_frozen_server_is_passed_over_within_its_short_time_out(pair: Any, database: Any) -> None:
    (one, _), _ = pair
    os.kill(one.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert who(database) == "two"
        assert time.monotonic() - begun < 3
    finally:
        os.kill(one.pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_transaction_that_lost_its_server_says_that_another_may_do_it(pair: Any, database: Any) -> None:
    (one, _), _ = pair
    assert who(database) == "one"
    database.set_autocommit(False)
    assert who(database) == "one"
    one.stop(kill=True)
    try:
        with pytest.raises(OperationalError) as lost:
            who(database)
        assert database.may_ask_elsewhere(lost.value)
        database.close()
    finally:
        one.start()


@pytest.mark.slow
def test_a_galera_node_without_its_cluster_serves_nobody(database: Any) -> None:
    class Cursor:
        def execute(self, _sql: str) -> None: ...
        def close(self) -> None: ...
        def fetchall(self) -> list[tuple[str, str]]:
            return [("wsrep_provider_name", "Galera"), ("wsrep_ready", "OFF")]

    class Connection:
        def cursor(self) -> Cursor:
            return Cursor()

    with pytest.raises(NotReady):
        servers.check_ready(Connection())
    assert who(database) == "one", "a server without Galera is ready when it answers"

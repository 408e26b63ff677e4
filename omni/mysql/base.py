"""Django's MySQL backend, with transactions that begin together with their first statement.

Owns how a transaction begins on the wire, and that several statements may share a packet (`omni.kernel.pipeline`).
Django says `SET autocommit=0` before a transaction and `SET autocommit=1` after it, two round trips beside those that
the work needs. Here the session stays in autocommit; START TRANSACTION goes ahead of the first statement in the same
packet, and COMMIT or ROLLBACK ends it. A transaction without a statement says nothing at all. With several servers
(`servers`) a connection is made to the one in use, and one that is lost is told to all threads.
"""

from __future__ import annotations

from typing import Any

import MySQLdb
from django.db.backends.mysql import base
from django.db.utils import DatabaseError, IntegrityError
from MySQLdb import OperationalError
from MySQLdb.constants import CLIENT

from omni.kernel import clock
from omni.mysql import servers
from omni.mysql.servers import Server, Servers


def _cursor_class() -> Any:
    """Ours; the driver's own where PyMySQL stands in under the other's name."""
    if MySQLdb.__name__ != "MySQLdb":
        return None
    from omni.mysql.cursors import KnowingCursor

    return KnowingCursor


_CURSOR = _cursor_class()
_BEGIN = "START TRANSACTION;\n"


class CursorWrapper(base.CursorWrapper):
    """Puts the pending START TRANSACTION before the statement, and skips its empty result."""

    def __init__(self, cursor: Any, owner: DatabaseWrapper) -> None:
        super().__init__(cursor)
        self._owner = owner

    def execute(self, query: str, args: Any = None) -> Any:
        begins, self._owner.begin_pending = self._owner.begin_pending, False
        try:
            self.cursor.execute(_BEGIN + query if begins else query, args)
            if begins:
                self.cursor.nextset()
                if ";" not in query:
                    self.all_read()
        except OperationalError as error:
            raise self._failed(error) from error
        return self.cursor.rowcount

    def executemany(self, query: str, args: Any) -> Any:
        if self._owner.begin_pending:
            self.execute("DO 0")
        try:
            return self.cursor.executemany(query, args)
        except OperationalError as error:
            raise self._failed(error) from error

    def nextset(self) -> Any:
        """The next statement's result, or its error."""
        try:
            return self.cursor.nextset()
        except OperationalError as error:
            raise self._failed(error) from error

    def outcome(self) -> tuple[Any, int, int]:
        """Rows, count of rows, key: of the statement whose result this is."""
        raw = self.cursor
        return raw.fetchall() if raw.description is not None else (), raw.rowcount, raw.lastrowid

    def all_read(self) -> None:
        """The result seen last is the packet's last."""
        if _CURSOR is not None:
            self.cursor.all_read()

    def _failed(self, error: Exception) -> Exception:
        """What Django shows of it.

        A deadlock has ended the whole transaction on the server, and what came after would be committed statement by
        statement: so nothing may come after it in this block.
        """
        if error.args[0] in self.codes_for_integrityerror:
            return IntegrityError(*error.args)
        self._owner.note(error)
        if self._owner.in_atomic_block:
            self._owner.needs_rollback = True
        return error


class DatabaseWrapper(base.DatabaseWrapper):
    begin_pending = False  # Django believes in a transaction, the server has not heard of it yet
    choice: Servers | None = None  # when there are several
    server: Server | None = None  # whose connection this is
    server_since = 0.0

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        params["client_flag"] |= CLIENT.MULTI_STATEMENTS
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        hosts = conn_params.pop("servers", None)
        if not hosts:
            return super().get_new_connection(conn_params)
        self.choice, self.server_since = servers.of(hosts), clock.monotonic()

        def open_one(server: Server) -> Any:
            made = super(DatabaseWrapper, self).get_new_connection(
                {**conn_params, "host": server.host, "port": server.port}
            )
            try:
                servers.check_ready(made)
            except BaseException:
                made.close()
                raise
            return made

        connection, self.server = self.choice.connect(open_one, OperationalError)
        return connection

    def note(self, error: Exception) -> None:
        """One of several servers failed: no thread goes on with its connection to it."""
        if self.may_ask_elsewhere(error) and self.choice is not None and self.server is not None:
            self.choice.lost(self.server, error)

    def may_ask_elsewhere(self, error: Exception) -> bool:
        """Whether another server may well do what this one failed to do."""
        return self.choice is not None and bool(error.args) and error.args[0] in servers.LOST

    @property
    def is_on_lost_server(self) -> bool:
        if self.choice is None or self.server is None:
            return False
        return self.choice.is_lost(self.server, self.server_since)

    def create_cursor(self, name: str | None = None) -> CursorWrapper:
        return CursorWrapper(self.connection.cursor(_CURSOR), self)

    def _set_autocommit(self, autocommit: bool) -> None:
        self.begin_pending = not autocommit
        if autocommit:
            super()._set_autocommit(True)  # type: ignore[misc]  # sends something to a new connection only

    def _commit(self) -> None:
        if not self.begin_pending:
            try:
                super()._commit()  # type: ignore[misc]
            except DatabaseError as error:
                self.note(error)
                raise
            self.begin_pending = not self.autocommit

    def _rollback(self) -> None:
        if not self.begin_pending:
            super()._rollback()  # type: ignore[misc]
            self.begin_pending = not self.autocommit

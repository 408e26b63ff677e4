"""Django's MySQL backend, with transactions that begin together with their first statement.

Owns how a transaction begins on the wire, and that several statements may share a packet (`omni.kernel.pipeline`).
Django says `SET autocommit=0` before a transaction and `SET autocommit=1` after it, two round trips beside those that
the work needs. Here the session stays in autocommit; START TRANSACTION goes ahead of the first statement in the same
packet, and COMMIT or ROLLBACK ends it. A transaction without a statement says nothing at all. Knows nothing of ours.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.mysql import base
from django.db.utils import IntegrityError
from MySQLdb import OperationalError
from MySQLdb.constants import CLIENT

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

    def _failed(self, error: Exception) -> Exception:
        """What Django shows of it.

        A deadlock has ended the whole transaction on the server, and what came after would be committed statement by
        statement: so nothing may come after it in this block.
        """
        if error.args[0] in self.codes_for_integrityerror:
            return IntegrityError(*error.args)
        if self._owner.in_atomic_block:
            self._owner.needs_rollback = True
        return error


class DatabaseWrapper(base.DatabaseWrapper):
    begin_pending = False  # Django believes in a transaction, the server has not heard of it yet

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()
        params["client_flag"] |= CLIENT.MULTI_STATEMENTS
        return params

    def create_cursor(self, name: str | None = None) -> CursorWrapper:
        return CursorWrapper(self.connection.cursor(), self)

    def _set_autocommit(self, autocommit: bool) -> None:
        self.begin_pending = not autocommit
        if autocommit:
            super()._set_autocommit(True)  # type: ignore[misc]  # sends something to a new connection only

    def _commit(self) -> None:
        if not self.begin_pending:
            super()._commit()  # type: ignore[misc]
            self.begin_pending = not self.autocommit

    def _rollback(self) -> None:
        if not self.begin_pending:
            super()._rollback()  # type: ignore[misc]
            self.begin_pending = not self.autocommit

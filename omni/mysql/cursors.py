"""mysqlclient's cursor without the questions whose answers are known.

Owns when the driver is asked for results. Each call into it gives the interpreter's lock away and has to get it back,
beside other threads that wait for it too; asking before and after every statement whether something is left, and for
the rows of a statement that has none, is three such calls of four.
"""

from __future__ import annotations

from typing import Any

from MySQLdb.cursors import Cursor


class KnowingCursor(Cursor):  # type: ignore[misc]  # the driver has no types
    """Asks for further results only where there may be some: after a packet of several statements."""

    _several = False

    def _query(self, q: bytes) -> Any:
        self._several = b";" in q or q[:4].upper() == b"CALL"
        return super()._query(q)

    def _get_result(self) -> Any:
        database = self._get_db()
        return database.store_result() if database.field_count() else None

    def _discard(self) -> None:
        if self._several:
            self._several = False
            super()._discard()
        else:
            self.description = self.description_flags = self.rownumber = self._rows = self._result = None

    def all_read(self) -> None:
        """Whoever knows how many statements the packet had has seen the last result."""
        self._several = False

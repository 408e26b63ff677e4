"""Whether an error of the database means that there is no room, and that nothing was written for the want of it.

Owns the words and numbers by which the databases say so. SQLite undoes a transaction that it has no room to commit;
of a server's COMMIT nobody knows.
"""

from __future__ import annotations

from django.db import Error

_SQLITE = "disk is full"
_MYSQL = {1021, 1114}  # disk full, table full


def kept_nothing(error: Error, *, committing: bool) -> bool:
    """The disk is full, and the transaction left nothing."""
    said = error.args[0] if error.args else ""
    if isinstance(said, str):
        return _SQLITE in said
    return said in _MYSQL and not committing

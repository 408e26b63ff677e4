"""A thread that must soon know whether the database answers gives it seconds, not the half minute of a long query.

Owns those limits for the connection of the calling thread. Does nothing on SQLite, which is a file of this host.
"""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS, connections

CONNECT_S, ANSWER_S = 2, 3


def be_impatient(using: str = DEFAULT_DB_ALIAS) -> None:
    """From the next connect of this thread on."""
    connection = connections[using]
    if connection.vendor != "mysql":
        return
    connection.close()
    limits = {"connect_timeout": CONNECT_S, "read_timeout": ANSWER_S, "write_timeout": ANSWER_S}
    known = connection.settings_dict  # shared by all threads: replaced here, never changed
    connection.settings_dict = {**known, "OPTIONS": {**known["OPTIONS"], **limits}}

"""Reading a list and the write index that it belongs to as of one and the same moment.

Owns a read-only snapshot on both databases. Agents and ingresses drop an answer whose (epoch, index) they already have,
so an index that is merely a lower bound would let them miss the very change that the answer shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.db import connection, transaction

from consensus import fence


@contextlib.contextmanager
def taken() -> Iterator[tuple[int, int, str]]:
    """(epoch, write index, cluster id); whatever is read inside is exactly of that index."""
    if connection.in_atomic_block:  # a test's own transaction
        yield fence.read()[:3]
    elif connection.vendor == "sqlite":
        with _sqlite():
            yield fence.read()[:3]
    else:
        with connection.cursor() as cursor:  # for the next transaction only
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with transaction.atomic():
            yield fence.read()[:3]


@contextlib.contextmanager
def _sqlite() -> Iterator[None]:
    """Django's own transactions are IMMEDIATE and would queue with the writers."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN DEFERRED")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("COMMIT")

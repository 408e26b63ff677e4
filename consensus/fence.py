"""The fence: one row that proves, inside each write's own transaction, that the writer still leads.

Owns every statement on `consensus_fence`. `advancing` decides last before COMMIT: a conditional UPDATE that changes
the row (SELECTs and no-op UPDATEs let a deposed leader through on Galera: shared FIGURES) and hands out the write
index. `claim` is what a new leader does first: it raises the epoch, so that no older writer can commit any more.
The token is this database epoch, never a Raft term.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from consensus import sqlite_lock
from omni.kernel import clock
from omni.kernel.pipeline import Result, Statement

_LOCKED = {1205, 3572}  # the row's lock was not free (in time); MySQL's own number for NOWAIT
CLAIM_LOCK_WAIT_S = 1
FROZEN_S = 0.25  # who holds the fence's row for so long is frozen: it is the last statement before COMMIT
_LOOK_EVERY_S = 0.02
CLAIM_WITHIN_S = 5.0


class ForeignCluster(Exception):
    """The database belongs to another cluster; nobody of this one may write to it."""

    def __init__(self, theirs: str, ours: str) -> None:
        if theirs.startswith("restoring "):  # consensus.takeover's mark
            super().__init__("a restore into this database did not finish; repeat it: manage.py cluster_restore PATH")
        else:
            super().__init__(self._whose(theirs, ours))
        self.theirs = theirs
        self.ours = ours

    @staticmethod
    def _whose(theirs: str, ours: str) -> str:
        return (
            f"the database belongs to cluster {theirs}, this is cluster {ours}; two clusters never share one database. "
            "Use another database, or give this cluster the cluster.secret that the database was made with. To make "
            f"this cluster its owner on purpose, stop the other one and run: manage.py cluster_adopt --from {theirs}"
        )


class ClaimLost(Exception):
    """Another member claimed the fence at the same moment."""


@dataclass(frozen=True, slots=True)
class Claim:
    epoch: int
    claim_id: str
    write_index: int


def read(using: str = DEFAULT_DB_ALIAS) -> tuple[int, int, str, str]:
    """(epoch, write_index, cluster_id, holder); zeros before the first claim."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT epoch, write_index, cluster_id, holder FROM consensus_fence WHERE id = 1")
        row = cursor.fetchone()
    return (int(row[0]), int(row[1]), str(row[2]), str(row[3])) if row else (0, 0, "", "")


def write_index(using: str = DEFAULT_DB_ALIAS) -> int:
    """The index of the last committed write."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT write_index FROM consensus_fence WHERE id = 1")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def advancing(
    connection: BaseDatabaseWrapper,
    epoch: int,
    check: Callable[[Result], None],
    *,
    moves_rights: bool = False,
    rights_as_at: int | None = None,
) -> Statement:
    """The statement that numbers this transaction if `epoch` still holds the fence; `numbered` reads its result.

    `rights_as_at`: and if nobody has changed a right since that write. The rows' order is the order of commits, so what
    it finds unchanged is unchanged until this transaction is over.
    """
    moved = "rights_index = write_index + 1, " if moves_rights else ""  # before write_index: MySQL assigns in order
    where, values = "WHERE id = 1 AND epoch = %s", [epoch]
    if rights_as_at is not None:
        where, values = where + " AND rights_index = %s", [epoch, rights_as_at]
    if connection.vendor == "mysql":
        advance = "write_index = LAST_INSERT_ID(write_index + 1), writer = CONNECTION_ID()"
        return Statement(f"UPDATE consensus_fence SET {moved}{advance} {where}", values, check)  # noqa: S608 - ours
    advance = "write_index = write_index + 1, writer = %s"
    sql = f"UPDATE consensus_fence SET {moved}{advance} {where} RETURNING write_index"  # noqa: S608 - ours
    return Statement(sql, [os.getpid(), *values], check)


def rights_index(connection: BaseDatabaseWrapper) -> int:
    """The write that last changed who may do what. Read before a copy of a right, it tells how old the copy is."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT rights_index FROM consensus_fence WHERE id = 1")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def index_sql(connection: BaseDatabaseWrapper) -> str:
    """The number of this transaction in SQL, for the rows that carry it: behind the fence in the same packet.

    On MySQL until a row with a key of the database's own making is inserted: it goes last, and there is one at most.
    """
    if connection.vendor == "mysql":
        return "LAST_INSERT_ID()"
    return "(SELECT write_index FROM consensus_fence WHERE id = 1)"


def numbered(connection: BaseDatabaseWrapper, result: Result) -> int | None:
    """The write index that the fence gave; None = deposed, the caller rolls back."""
    if connection.vendor == "mysql":
        return int(result.key or 0) if result.count == 1 else None
    return int(result.rows[0][0]) if result.rows else None


def claim(cluster_id: str, member: str, using: str = DEFAULT_DB_ALIAS) -> Claim:
    """Raise the epoch for `member`. Raises ForeignCluster, ClaimLost, or the database's own errors.

    A former leader that froze inside a transaction holds the row: its connection (its process, on SQLite) is killed.
    One that lives is waited for, it holds the row for milliseconds. An unknown outcome is resolved by reading the
    random `claim_id` back.
    """
    connection = connections[using]
    epoch, _, theirs, _ = read(using)
    if not theirs:
        _create_row(connection, cluster_id)
        epoch, _, theirs, _ = read(using)
    if theirs != cluster_id:
        raise ForeignCluster(theirs, cluster_id)
    claim_id = secrets.token_hex(8)
    try:
        with sqlite_lock.held(connection, kill_frozen_after_s=CLAIM_LOCK_WAIT_S):
            _raise_epoch(connection, epoch, cluster_id, member, claim_id)
    except OperationalError:
        connection.close()
        if _holder_claim(connection) != claim_id:
            raise
    return Claim(epoch + 1, claim_id, write_index(using))


def _raise_epoch(connection: BaseDatabaseWrapper, epoch: int, cluster_id: str, member: str, claim_id: str) -> None:
    """At once if the row is free; else a frozen holder is removed, and live ones are queued behind."""
    values = [member, claim_id, connection.ops.adapt_datetimefield_value(clock.now()), epoch, cluster_id]
    if connection.vendor != "mysql":
        _update_epoch(connection, values, wait=True)
        return
    first: tuple[int, int, int, int] | None = None
    since = time.monotonic()
    until = since + CLAIM_WITHIN_S
    while not _took(connection, values, wait=False, last=time.monotonic() > until):
        seen = _uncommitted(connection)
        if first is None:
            first, since = seen, time.monotonic()
        elif seen != first:  # many write: such a row is never just free, so stand in line
            with _short_lock_wait(connection):
                if _took(connection, values, wait=True):
                    return
            first = None
        elif time.monotonic() - since >= FROZEN_S:
            _kill(connection, seen[0])
            first = None
        time.sleep(_LOOK_EVERY_S)


def _took(connection: BaseDatabaseWrapper, values: list[Any], *, wait: bool, last: bool = False) -> bool:
    """Whether the epoch is raised; False when the row is locked (raised on the `last` try)."""
    try:
        _update_epoch(connection, values, wait=wait)
    except OperationalError as error:
        if last or not error.args or error.args[0] not in _LOCKED:
            raise
        return False
    return True


def _update_epoch(connection: BaseDatabaseWrapper, values: list[Any], *, wait: bool) -> None:
    mine = "CONNECTION_ID()" if connection.vendor == "mysql" else str(os.getpid())
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if not wait:
            cursor.execute("SELECT id FROM consensus_fence WHERE id = 1 FOR UPDATE NOWAIT")
        cursor.execute(
            f"UPDATE consensus_fence SET epoch = epoch + 1, writer = {mine}, holder = %s, claim_id = %s, "  # noqa: S608
            "claimed_at = %s WHERE id = 1 AND epoch = %s AND cluster_id = %s",
            values,
        )
        if cursor.rowcount != 1:
            raise ClaimLost(f"another member claimed the fence after epoch {values[3]}")


def _create_row(connection: BaseDatabaseWrapper, cluster_id: str) -> None:
    """The row of a new database; losing the race for it to another member is fine."""
    ignore = "INSERT IGNORE" if connection.vendor == "mysql" else "INSERT OR IGNORE"
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM consensus_fence WHERE id = 1")
        if cursor.fetchone() is None:
            cursor.execute(
                f"{ignore} INTO consensus_fence (id, cluster_id, epoch, write_index, holder, claim_id, writer) "
                "VALUES (1, %s, 0, 0, '', '', 0)",
                [cluster_id],
            )


def _holder_claim(connection: BaseDatabaseWrapper) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT claim_id FROM consensus_fence WHERE id = 1")
        row = cursor.fetchone()
    return str(row[0]) if row else ""


@contextlib.contextmanager
def _short_lock_wait(connection: BaseDatabaseWrapper) -> Iterator[None]:
    if connection.vendor != "mysql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@SESSION.innodb_lock_wait_timeout")
        before = int(cursor.fetchone()[0])
        cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [CLAIM_LOCK_WAIT_S])
    try:
        yield
    finally:
        with contextlib.suppress(OperationalError), connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [before])


def _kill(connection: BaseDatabaseWrapper, writer: int) -> None:
    """End a connection: same database user, so no privilege is needed (DECISIONS 1)."""
    with contextlib.suppress(OperationalError), connection.cursor() as cursor:  # it may have ended by itself
        cursor.execute(f"KILL {int(writer)}")


def _uncommitted(connection: BaseDatabaseWrapper) -> tuple[int, int, int, int]:
    """(connection that wrote last, write index, epoch, our own connection), as the row's holder has left them."""
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
        cursor.execute("SELECT writer, write_index, epoch, CONNECTION_ID() FROM consensus_fence WHERE id = 1")
        writer, index, epoch, mine = cursor.fetchone()
    return int(writer), int(index), int(epoch), int(mine)

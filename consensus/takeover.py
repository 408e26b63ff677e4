"""Changing on purpose whose database this is: what a restore and `cluster_adopt` do, and nobody else.

Owns the statements that change the fence's `cluster_id` or make its epoch jump; every other one is `fence`'s. A jump of
1,000 tells every agent that this is no ordinary election: what it was acknowledged may be forgotten (DECISIONS 2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from consensus import fence, gate, sqlite_lock
from consensus.lease import Held, NotHeld
from omni.kernel import clock

EPOCH_JUMP = 1_000
_RESTORING = "restoring "  # no cluster's id begins so: nobody can lead on a database that is half restored


class FenceMoved(Exception):
    """Somebody else claimed the fence in the meantime; nothing was changed."""


def unfinished_mark(name: str) -> str:
    """What stands in the place of a cluster id while the restore of the backup of cluster `name` goes on."""
    return f"{_RESTORING}{name}"[:64]


def is_unfinished(cluster_id: str) -> bool:
    """Whether a restore into the database has begun and not ended."""
    return cluster_id.startswith(_RESTORING)


def close_to_all(mark: str, using: str = DEFAULT_DB_ALIAS) -> int:
    """Put `mark` into the fence and raise its epoch: from here nobody can lead or commit; the epoch there is now."""
    connection = connections[using]
    insert = "INSERT IGNORE" if connection.vendor == "mysql" else "INSERT OR IGNORE"
    with sqlite_lock.held(connection), transaction.atomic(using=using), connection.cursor() as cursor:
        cursor.execute(
            f"{insert} INTO consensus_fence (id, cluster_id, epoch, write_index, holder, claim_id, writer) "
            "VALUES (1, %s, 0, 0, '', '', 0)",
            [mark],
        )
        cursor.execute(
            "UPDATE consensus_fence SET cluster_id = %s, epoch = epoch + 1, holder = '', claim_id = '' WHERE id = 1",
            [mark],
        )
    return fence.read(using)[0]


def hand_over(*, theirs: str, epoch: int, ours: str, to_epoch: int, write_index: int | None = None) -> None:
    """Inside a gate transaction that is held under `to_epoch`: make the database ours. Raises FenceMoved."""
    connection = connections[DEFAULT_DB_ALIAS]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE consensus_fence SET cluster_id = %s, epoch = %s, write_index = COALESCE(%s, write_index), "
            "claimed_at = %s WHERE id = 1 AND cluster_id = %s AND epoch = %s",
            [ours, to_epoch, write_index, connection.ops.adapt_datetimefield_value(clock.now()), theirs, epoch],
        )
        if cursor.rowcount != 1:
            raise FenceMoved(f"somebody else has claimed the fence after epoch {epoch}")


@dataclass(frozen=True, slots=True)
class _Borrowed:
    """The lease of a command for as long as it writes."""

    epoch: int
    claim_id: str

    def current(self) -> Held | NotHeld:
        return Held(self.epoch, clock.monotonic() + 60.0, self.claim_id)


@contextlib.contextmanager
def leading(epoch: int, claim_id: str, member: str) -> Iterator[None]:
    """Inside, `gate.run` of this process writes under `epoch`; the fence refuses it when somebody else claimed."""
    before, name = gate.lease(), gate.member()
    gate.configure(_Borrowed(epoch, claim_id), member)
    try:
        yield
    finally:
        gate.configure(before, name)

"""The leader's loop over snapshots and restores: gives up what nobody ends, lets go of what nobody wants any more."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

from consensus import fence, gate
from consensus.gate import Transaction
from instances.volumes.snapshots import jobs
from instances.volumes.snapshots.models import VolumeRestore, VolumeSnapshot
from instances.volumes.snapshots.states import API, RESTORING, SNAPSHOT, TAKING, RestoreStatus, SnapshotStatus
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.errors import TransitionRefused
from omni.kernel.transitions import move
from releases import services as releases

EVERY_S = 1.0
KEPT_S = 30 * 86_400.0  # restores that have ended, snapshots that failed
_FORGET_EVERY_S = 3600.0
_PORTION = 200
_SILENT_S = 20.0  # we ourselves were away for so long: agents may have spoken to nobody
_LENIENT_S = 30.0  # which is three of their words
_ACTOR = system("volumes")
_log = logging.getLogger("omni.volumes")


class Sweep:
    """One per leadership. Asks the database only when something was written, or a time has come.

    Nothing is given up in its first half minute, nor after a pause of its own: who was to be heard must have had a
    chance to speak (DECISIONS 13).
    """

    def __init__(self) -> None:
        self._index = -1
        self._look_at = 0.0
        self._forget_at = 0.0
        self._ticked_at = float("-inf")
        self._lenient_until = 0.0

    def tick(self) -> float | None:
        index, now = fence.write_index(), clock.monotonic()
        if now - self._ticked_at > _SILENT_S:  # a new leader, or a database that is back
            self._lenient_until = now + _LENIENT_S
        self._ticked_at = now
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY_S
            self._forget()
        if index == self._index and now < self._look_at:
            return self._look_at - now
        self._index, self._look_at = index, now + _FORGET_EVERY_S
        at = clock.now()
        for row in _under_way():
            left = max((row.end_by - at).total_seconds(), self._lenient_until - now)
            if left <= 0:
                self._give_up(row)
            else:
                self._look_at = min(self._look_at, now + max(left, 0.05))
        _clear_removed()
        return self._look_at - now

    def _give_up(self, row: VolumeSnapshot | VolumeRestore) -> None:
        try:
            gate.run(lambda tx: jobs.give_up(tx, row), actor=_ACTOR, cause=f"{row}: no word of its agent"[:200])
        except TransitionRefused:
            _log.debug("%s has ended meanwhile", row)

    def _forget(self) -> None:
        before = clock.now() - dt.timedelta(seconds=KEPT_S)
        ended = (RestoreStatus.SUCCEEDED, RestoreStatus.FAILED, RestoreStatus.LOST)
        failed = (SnapshotStatus.FAILED, SnapshotStatus.LOST)
        old = list(VolumeRestore.objects.filter(status__in=ended, ended_at__lt=before).values_list("pk", flat=True))
        stale = list(VolumeSnapshot.objects.filter(status__in=failed, ended_at__lt=before).values_list("pk", flat=True))
        if not old and not stale:
            return

        def forget(tx: Transaction) -> None:
            VolumeRestore.objects.filter(pk__in=old[:_PORTION]).delete()
            for number in stale[:_PORTION]:
                move(VolumeSnapshot, number, table=SNAPSHOT, to=SnapshotStatus.REMOVED, owner=API)
            change = {"restores": len(old[:_PORTION]), "snapshots": len(stale[:_PORTION])}
            tx.record("snapshots.forgotten", "platform", 0, change=change)

        gate.run(forget, actor=_ACTOR, cause="they ended long ago")


def _under_way() -> list[Any]:
    snapshots = VolumeSnapshot.objects.select_related("app").filter(status__in=TAKING).order_by("id")[:_PORTION]
    restores = VolumeRestore.objects.select_related("app").filter(status__in=RESTORING).order_by("id")[:_PORTION]
    return [*snapshots, *restores]


def _clear_removed() -> None:
    """Rows first; bytes after the commit, and only those that nobody else refers to or has brought again since."""
    numbers = list(VolumeSnapshot.objects.filter(status=SnapshotStatus.REMOVED).values_list("pk", flat=True)[:_PORTION])
    if not numbers:
        return

    def clear(tx: Transaction) -> list[tuple[str, dt.datetime]]:
        rows = VolumeSnapshot.objects.filter(pk__in=numbers)
        digests = sorted(set(rows.exclude(artifact=None).values_list("artifact_id", flat=True)))
        rows.delete()
        tx.record("snapshots.cleared", "platform", 0, change={"count": len(numbers), "artifacts": len(digests)})
        return releases.drop_unreferenced(digests)

    dropped, _ = gate.run(clear, actor=_ACTOR, cause="they were removed")
    releases.discard(dropped)

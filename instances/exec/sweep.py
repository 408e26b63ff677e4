"""The leader's loop over sessions: ends what nobody else will, and forgets what ended long ago.

A ticket that nobody came with, an agent that did not come or was lost, an instance that has ended. The agent hears of
it with its list, and ends what it may still run.
"""

from __future__ import annotations

import datetime as dt
import logging

from consensus import fence, gate
from instances.exec import services
from instances.exec.models import ExecSession
from instances.exec.states import LIVE
from instances.models import Instance
from instances.states import ENDED
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.errors import TransitionRefused

EVERY_S = 1.0
KEPT_S = 7 * 86_400.0
_FORGET_EVERY_S = 3600.0
_PORTION = 200
_ACTOR = system("exec")
_log = logging.getLogger("omni.exec")


class Sweep:
    """One per leadership. Asks the database only when something was written, or a time has come."""

    def __init__(self) -> None:
        self._index = -1
        self._look_at = 0.0
        self._forget_at = 0.0

    def tick(self) -> float | None:
        index, now = fence.write_index(), clock.monotonic()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY_S
            self._forget()
        if index == self._index and now < self._look_at:
            return self._look_at - now
        self._index, self._look_at = index, now + _FORGET_EVERY_S
        at = clock.now()
        rows = list(ExecSession.objects.select_related("app").filter(status__in=LIVE).order_by("id")[:_PORTION])
        numbers = {row.instance_number for row in rows}
        alive = set(
            Instance.objects.filter(pk__in=numbers).exclude(status__in=ENDED).values_list("pk", flat=True)
        ) if rows else set()  # fmt: skip
        for row in rows:
            if row.end_by <= at:
                self._give_up(row, "nobody_came" if row.status == "open" else "agent_lost")
            elif row.instance_number not in alive:
                self._give_up(row, "instance_ended")
            else:
                self._look_at = min(self._look_at, now + max((row.end_by - at).total_seconds(), 0.05))
        return self._look_at - now

    def _give_up(self, row: ExecSession, reason: str) -> None:
        try:
            gate.run(lambda tx: services.give_up(tx, row, reason), actor=_ACTOR, cause=f"session {row.pk}: {reason}")
        except TransitionRefused:
            _log.debug("session %d has ended meanwhile", row.pk)

    def _forget(self) -> None:
        old = ExecSession.objects.filter(ended_at__lt=clock.now() - dt.timedelta(seconds=KEPT_S))
        numbers = list(old.order_by("id").values_list("pk", flat=True)[:_PORTION])
        if not numbers:
            return

        def forget(tx: gate.Transaction) -> None:
            ExecSession.objects.filter(pk__in=numbers).delete()
            tx.record("exec.forgotten", "exec", numbers[0], change={"sessions": len(numbers)})

        gate.run(forget, actor=_ACTOR, cause="old sessions")

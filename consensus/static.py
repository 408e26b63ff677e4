"""The lease of a cluster of one member: nothing to agree on, so it leads from the moment when it claimed the fence.

Owns that rule. With more than one member `elected.py` takes its place behind the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.lease import Held, NotHeld
from omni.kernel import clock

LEASE_S = 2.0  # how far each answer reaches; the daemon renews it many times in that time
_TERM = 1


@dataclass(slots=True)
class StaticLease:
    """`me` is `"<host>:<port>"`. Holds after `grant`."""

    me: str
    _granted: tuple[int, str] | None = None

    def term(self) -> int | None:
        return _TERM

    def grant(self, term: int, epoch: int, claim_id: str) -> None:
        self._granted = (epoch, claim_id)

    def revoke(self) -> None:
        self._granted = None

    def current(self) -> Held | NotHeld:
        granted = self._granted
        if granted is None:
            return NotHeld(None)
        return Held(granted[0], clock.monotonic() + LEASE_S, granted[1])

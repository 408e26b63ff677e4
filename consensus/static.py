"""The lease without consensus: the first entry of `instances` leads, the others forward to it (DECISIONS 9).

Owns who the leader is when there is nothing to agree on. Right for one host that runs the whole cluster, and refused
by the configuration for more than one. Raft takes its place behind the same protocol.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.lease import Held, NotHeld
from omni.kernel import clock

LEASE_S = 2.0  # how long a page is valid; the daemon renews it four times in that time


@dataclass(slots=True)
class StaticLease:
    """`me` and `leader` are `"<host>:<port>"`. Holds only after `grant`, that is after the fence was claimed."""

    me: str
    leader: str
    _granted: tuple[int, str] | None = None

    @property
    def is_candidate(self) -> bool:
        return self.me == self.leader

    def grant(self, epoch: int, claim_id: str) -> None:
        self._granted = (epoch, claim_id)

    def revoke(self) -> None:
        self._granted = None

    def current(self) -> Held | NotHeld:
        if self._granted is None:
            return NotHeld(None if self.is_candidate else self.leader)
        epoch, claim_id = self._granted
        return Held(epoch, clock.monotonic() + LEASE_S, claim_id)

"""What others may ask core: role, term, leader, lease, indexes, voters.

Owns the answers' meaning; changes nothing. Knows PySyncObj only by the names of its fields; core joins the two.
"""

from __future__ import annotations

import math
from typing import Any

from omni.kernel import clock

_CANDIDATE, _LEADER = 1, 2


class Observed:
    """A part of core."""

    @property
    def role(self: Any) -> str:
        if self._SyncObj__raftState == _LEADER:
            return "leader"
        return "candidate" if self._SyncObj__raftState == _CANDIDATE or self._election.asking else "follower"

    @property
    def term(self: Any) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def leader(self: Any) -> str | None:
        """The leader's id as far as known; None as soon as the connection to it breaks."""
        found = self._SyncObj__raftLeader
        return str(found.id) if found is not None else None

    @property
    def established(self: Any) -> bool:
        """Leads, and an entry of its own term is applied."""
        if self._SyncObj__raftState != _LEADER or self.transferring or self._SyncObj__noopIDx is None:
            return False
        return bool(self.applied_index >= int(self._SyncObj__noopIDx))

    @property
    def lease_until(self: Any) -> float:
        """While a majority has heard us within `lease_s`, counted from when we spoke: nobody else can be elected."""
        if self._SyncObj__raftState != _LEADER:
            return 0.0
        times = [clock.monotonic(), *(self._acknowledged.get(peer.id, -math.inf) for peer in self.otherNodes)]
        return float(sorted(times, reverse=True)[len(times) // 2] + self.timings.lease_s)

    @property
    def commit_index(self: Any) -> int:
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self: Any) -> int:
        return int(self._SyncObj__raftLastApplied)

    @property
    def voters(self: Any) -> dict[str, str]:
        """Who counts, `{id: Raft address}`, entries included that are not committed yet."""
        others = {peer.id: peer.address for peer in self.otherNodes}
        return others | ({self.me: self._my_address} if self.is_voter else {})

    @property
    def fresh(self: Any) -> bool:
        return bool(self.journal.meta.fresh)

    def connected(self: Any, peer: str) -> bool:
        return bool(self.isNodeConnected(self._peer(peer)))

    def lag(self: Any, peer: str) -> int | None:
        """How many entries the peer is behind, on the leader."""
        match = self._SyncObj__raftMatchIndex.get(self._peer(peer))
        return None if match is None or self.role != "leader" else max(0, self.journal[-1][1] - match)

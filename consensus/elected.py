"""The lease by election: held while Raft says that this member is the established leader of the claimed term.

Owns the conjunction of the two: Raft's page (who was elected) and the claim of the fence (under which epoch).
Neither alone is leadership. Never outlives the page: a Raft process that froze or died ends the lease by itself.
Also what a web worker falls back to while its daemon is silent: who leads elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.lease import ConsensusUnavailable, Held, Lease, NotHeld
from consensus.raft.page import RaftPage, RaftView


@dataclass(slots=True)
class ElectedLease:
    """`me` is `"<host>:<port>"`."""

    me: str
    page: RaftPage
    _granted: tuple[int, int, str] | None = None  # term, epoch, claim id

    def term(self) -> int | None:
        try:
            view = self.page.view()
        except ConsensusUnavailable:
            return None
        return view.term if _leads(view) else None

    def grant(self, term: int, epoch: int, claim_id: str) -> None:
        self._granted = (term, epoch, claim_id)

    def revoke(self) -> None:
        self._granted = None

    def current(self) -> Held | NotHeld:
        view = self.page.view()
        granted = self._granted
        if granted is not None and _leads(view) and view.term == granted[0]:
            return Held(granted[1], view.valid_until, granted[2])
        return NotHeld(view.leader if view.leader != self.me else None)


@dataclass(slots=True)
class MemberLease:
    """A web worker's side: what the daemon says; while it says nothing, who leads elsewhere according to Raft.

    A daemon that is being started again must not keep this member's web server from passing writes on. Without the
    daemon nothing is ever held here.
    """

    me: str
    daemon: Lease
    raft: RaftPage

    def current(self) -> Held | NotHeld:
        try:
            return self.daemon.current()
        except ConsensusUnavailable:
            view = self.raft.view()
            if view.leader is None or view.leader == self.me:
                raise
            return NotHeld(view.leader)


def _leads(view: RaftView) -> bool:
    return view.role == "leader" and view.established

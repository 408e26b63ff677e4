"""The member's leadership, one short step after the other: the lease page first, then the leader's work.

Owns the order. Elected → (claims.py) the fence is claimed → the page says so → work starts. Deposed or expired → the
page says so → work stops. Serves the static lease of one member and the elected one alike. A step waits for nothing:
neither for the database nor for a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from consensus.lease import Candidacy, ConsensusUnavailable, Held, NotHeld
from consensus.page import PageWriter
from omni.kernel import clock, measures

NOT_HELD_S = 1.0  # how long "another one leads" is to be believed without us


class Work(Protocol):
    """What only the leader does. Both return at once."""

    def start(self, epoch: int) -> None: ...

    def stop(self) -> None: ...


class Claims(Protocol):
    """Whoever claims the fence for us, in a thread of its own."""

    @property
    def serving(self) -> int:
        """The epoch under which writes may be taken; 0 for none."""
        ...

    def elected(self, term: int) -> None:
        """We were elected: the fence is to be claimed. Returns at once."""
        ...


@dataclass(slots=True)
class Leadership:
    lease: Candidacy
    page: PageWriter
    claims: Claims
    work: Work
    _working: int = 0  # the epoch under which work was started
    _told: int | None = None  # the term that `claims` was told of

    @property
    def leads(self) -> bool:
        """Whether the leader's work goes on here, as the last step found it."""
        return self._working != 0

    def tick(self) -> None:
        """One step: renew the page, start or stop what follows from it, pass an election on."""
        answer = self._write_page()
        epoch = answer.epoch if isinstance(answer, Held) else 0
        if epoch != self._working:
            if self._working:
                self.work.stop()
            if epoch:
                measures.leaderships.inc()
                self.work.start(epoch)
            self._working = epoch
        term = self.lease.term()
        if term != self._told and term is not None:
            self.claims.elected(term)
        self._told = term

    def stop(self, successor: str | None = None, for_s: float = 0.0) -> None:
        """The daemon ends: nobody leads here, or `successor` does (believed for `for_s`)."""
        self.lease.revoke()
        self.page.close(successor, for_s)
        if self._working:
            self.work.stop()
            self._working = 0

    def _write_page(self) -> Held | NotHeld | None:
        """What the page says now. A claim whose preparations are not finished is nobody's leadership yet."""
        try:
            answer = self.lease.current()
        except ConsensusUnavailable:
            self.page.unknown()
            return None
        if isinstance(answer, Held):
            if answer.epoch == self.claims.serving:
                self.page.held(answer, self.lease.me)
                return answer
            answer = NotHeld(None)
        self.page.not_held(answer.leader, clock.monotonic() + NOT_HELD_S)
        return answer

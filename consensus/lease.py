"""The leadership lease: the protocol that every source of leadership fulfils.

Owns the vocabulary (`Held`, `NotHeld`, `ConsensusUnavailable`). Knows no implementation: `static.py` (one member),
`elected.py` (Raft), `page.py` (what a daemon tells its member's other processes), `fake.py` (tests). A lease is an
opinion that saves work; the fence decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class ConsensusUnavailable(Exception):
    """Nobody can say who leads: neither *no* nor *yes*."""


@dataclass(frozen=True, slots=True)
class Held:
    """This member may write under `epoch` until `valid_until` (monotonic seconds of this host)."""

    epoch: int
    valid_until: float
    claim_id: str = ""


@dataclass(frozen=True, slots=True)
class NotHeld:
    """Somebody else leads, or nobody. `leader` is `"<host>:<HTTP port>"` or None when unknown."""

    leader: str | None


class Lease(Protocol):
    """Who leads, as this member knows it right now. Costs no network and no more than microseconds."""

    def current(self) -> Held | NotHeld:
        """Raises ConsensusUnavailable when the source of the lease itself cannot be read."""
        ...


class NoLease:
    """The lease of a process that never writes: a management command. What it wants changed goes by HTTP."""

    def current(self) -> Held | NotHeld:
        raise ConsensusUnavailable("a management command holds no lease: ask a running member over HTTP")


class Candidacy(Lease, Protocol):
    """The daemon's side of a lease: whether this member is to lead, and the claim of the fence that makes it so."""

    @property
    def me(self) -> str:
        """`"<host>:<HTTP port>"` of this member."""
        ...

    def term(self) -> int | None:
        """The term under which this member was elected and may claim the fence; None when it was not."""
        ...

    def grant(self, term: int, epoch: int, claim_id: str) -> None:
        """The fence was claimed for `term`. Worth nothing from the moment when `term` is over."""
        ...

    def revoke(self) -> None:
        """The fence is somebody else's, or we stop."""
        ...

"""The leadership lease: the protocol that every source of leadership fulfils.

Owns the vocabulary (`Held`, `NotHeld`, `ConsensusUnavailable`). Knows no implementation: `static.py` (the first entry
of `instances` leads), `fake.py` (tests), and Raft later. A lease is an opinion that saves work; the fence decides.
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

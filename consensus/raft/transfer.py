"""Handing the leadership over: a small state machine that the Raft thread moves on.

Owns the order: wait until the next leader has everything, end our lease (the page says so), then tell it to campaign,
then wait until it leads. A failed hand-over leaves the old leader leading. At most one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

CATCH_UP_S = 1.5
CAMPAIGN_S = 0.5

Told = Callable[[str | None, str], None]  # (the new leader's id, "") or (None, why not)


class Leadership(Protocol):
    """The part of core that a transfer needs."""

    me: str

    @property
    def role(self) -> str: ...
    @property
    def leader(self) -> str | None: ...
    def lag(self, peer: str) -> int | None: ...
    def prepare_transfer(self) -> None: ...
    def abandon_transfer(self) -> None: ...
    def hand_over(self, to: str) -> bool: ...


class Transfer:
    """From this member, which leads, to `to`."""

    def __init__(self, core: Leadership, to: str, now: float) -> None:
        self.to = to
        self._core = core
        self._told: list[Told] = []
        self._until = now + CATCH_UP_S
        self._prepared = False
        self._asked = False

    def tell(self, told: Told) -> None:
        self._told.append(told)

    def step(self, now: float) -> bool:
        """Once a tick; True when it is over, one way or the other."""
        core = self._core
        if core.role != "leader":
            core.abandon_transfer()
            if core.leader is None and now < self._until:
                return False
            self._end(core.leader, "" if core.leader else "nobody has taken over yet")
            return True
        if now >= self._until:
            core.abandon_transfer()
            why = "did not take over" if self._asked else "has not caught up"
            self._end(None, f"{self.to} {why}")
            return True
        if self._asked or core.lag(self.to) != 0:
            return False
        if not self._prepared:
            core.prepare_transfer()
            self._prepared = True  # the page is written before the next step: nobody relies on the lease any more
            self._until = now + CAMPAIGN_S
        elif core.hand_over(self.to):
            self._asked = True
            self._until = now + CAMPAIGN_S
        return False

    def _end(self, leader: str | None, why: str) -> None:
        for told in self._told:
            told(leader, why)

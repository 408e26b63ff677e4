"""When a member may campaign: pre-vote, and haste when the leader's connection breaks.

Owns the decisions that PySyncObj lacks, as plain data with the time passed in. A member asks the others first and
campaigns only when a majority would vote for it; who has heard the leader within the shortest election time-out
refuses. So a member that was cut off disturbs nobody when it returns, and haste costs a healthy leader nothing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

HASTE_FIRST_S = 0.005  # the others are to notice the broken connection too
HASTE_RANK_S = 0.02  # one after the other, so that votes do not split
HASTE_AGAIN_S = 0.015
HASTE_STANDING_S = 0.1  # how long a campaign of these may take before somebody tries again (votes were split)
UNWILLING_S = 2.0  # how much later a member campaigns that could not do a leader's work


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds. `lease_s` < `election_min_s`: an old leader has stopped before a new one can exist."""

    election_min_s: float = 0.3
    election_max_s: float = 0.6
    heartbeat_s: float = 0.08
    lease_s: float = 0.25
    fresh_wait_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Log:
    """Where a log ends; the later one of two is the greater."""

    term: int
    index: int

    def not_behind(self, other: Log) -> bool:
        return (self.term, self.index) >= (other.term, other.index)


@dataclass(frozen=True, slots=True)
class Voter:
    """What a member knows when it is asked."""

    term: int
    vote: str | None
    log: Log
    hears_leader: bool  # it leads itself, or has heard the leader within the shortest time-out
    may_vote: bool = True


def grants(voter: Voter, candidate: str, term: int, log: Log) -> bool:
    """Whether `voter` would vote for `candidate` in `term`; promises nothing."""
    if voter.hears_leader or not voter.may_vote or not log.not_behind(voter.log):
        return False
    return term > voter.term or (term == voter.term and voter.vote in (None, candidate))


@dataclass(slots=True)
class Election:
    """One member's timers and its current round of questions."""

    timings: Timings
    started_at: float
    deadline: float = 0.0  # PySyncObj moves it; it never sees it
    cleared: bool = False  # a majority would vote for us, or the leader asked us to take over
    heard_at: float = -math.inf
    round: int = 0
    asking: bool = False
    _grants: set[str] = field(default_factory=set)
    _haste_at: float = math.inf
    _haste_until: float = -math.inf
    _rank: int = 0

    def hears_leader(self, now: float) -> bool:
        """A member that just started may have heard one before: it waits as long as if it had."""
        return now - max(self.heard_at, self.started_at) < self.timings.election_min_s

    def heard(self, now: float) -> None:
        """The leader spoke."""
        self.heard_at = now
        self._calm()

    def leader_gone(self, now: float, rank: int) -> None:
        """The connection to the leader broke: ask soon, the first of us at once, the others a little later."""
        self.heard_at = -math.inf
        self._rank = rank
        self._haste_until = now + self.timings.election_max_s
        self._haste_at = now + HASTE_FIRST_S + rank * HASTE_RANK_S + random.uniform(0, 0.004)  # noqa: S311

    def due(self, *, willing: bool) -> float:
        """When to ask the others."""
        return min(self.deadline, self._haste_at) if willing else self.deadline + UNWILLING_S

    def ask(self, now: float) -> int:
        """A new round begins; its number."""
        self.round += 1
        self.asking = True
        self._grants = set()
        times = self.timings
        self.deadline = now + random.uniform(times.election_min_s, times.election_max_s)  # noqa: S311
        again = now + HASTE_AGAIN_S + self._rank * HASTE_RANK_S
        self._haste_at = again if again < self._haste_until else math.inf
        return self.round

    def answered(self, peer: str, round: int, *, granted: bool, voters: int) -> bool:
        """Whether that answer makes a majority of `voters`, us included."""
        if not self.asking or round != self.round or not granted:
            return False
        self._grants.add(peer)
        if 2 * (len(self._grants) + 1) <= voters:
            return False
        self.clear()
        return True

    def clear(self) -> None:
        self.cleared = True
        self.asking = False

    def stand(self, now: float) -> None:
        """We granted a vote, or campaign ourselves: let that run its course."""
        self.cleared = False
        self.asking = False
        patience = HASTE_STANDING_S * random.uniform(1.0, 2.0) + self._rank * HASTE_RANK_S  # noqa: S311
        self._haste_at = now + patience if now + patience < self._haste_until else math.inf

    def _calm(self) -> None:
        self.asking = False
        self._haste_at = math.inf
        self._haste_until = -math.inf

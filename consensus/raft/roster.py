"""What members have told each other lately, apart from Raft: able to lead, version, how far, fresh.

Owns the last word of each member and whether this one should want to lead. Lives in memory only; what is worth keeping
goes into the replicated state by `duties`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from consensus.raft.messages import Message
from omni.kernel import clock
from omni.version import VERSION

ANNOUNCED_FOR_S = 1.0


@dataclass(frozen=True, slots=True)
class Word:
    """A member's last ping, and when it came."""

    able: bool
    version: str
    applied: int
    fresh: bool
    at: float
    seen: dt.datetime


@dataclass(slots=True)
class Roster:
    """This member's own word, and those of the others."""

    _said: bool = False
    _said_at: float = -ANNOUNCED_FOR_S
    words: dict[str, Word] = field(default_factory=dict)

    def announce(self, able: bool) -> bool:
        """The daemon said so; whether that is news to the others."""
        before = self.able()
        self._said, self._said_at = able, clock.monotonic()
        return before != able

    def able(self) -> bool:
        """The daemon said yes within the last second."""
        return self._said and clock.monotonic() - self._said_at < ANNOUNCED_FOR_S

    def ping(self, term: int, applied: int, *, fresh: bool) -> Message:
        return {
            "type": "ping",
            "able": self.able(),
            "version": VERSION,
            "term": term,
            "applied": applied,
            "fresh": fresh,
        }

    def heard(self, peer: str, message: Message) -> None:
        self.words[peer] = Word(
            message["able"],
            message["version"],
            message["applied"],
            message["fresh"],
            clock.monotonic(),
            clock.now(),
        )

    def able_among(self, peers: set[str]) -> list[str]:
        """Those that could do a leader's work, who is furthest first."""
        found = [(word.applied, peer) for peer, word in self.words.items() if peer in peers and word.able]
        return [peer for _, peer in sorted(found, reverse=True)]

    def fresh_among(self, peers: set[str]) -> set[str]:
        return {peer for peer, word in self.words.items() if peer in peers and word.fresh}

    def willing(self, peers: set[str]) -> bool:
        """A member that is not able leaves the leadership to one that is, if there is one to be reached."""
        return self.able() or not self.able_among(peers)

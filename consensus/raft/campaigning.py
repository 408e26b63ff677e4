"""Core's part in elections: who is asked, who is answered, who may vote at all.

Owns what `elections` decides on being gathered and carried out. Knows PySyncObj only by the names of its fields; core
joins the two.
"""

from __future__ import annotations

from typing import Any

from consensus.raft import elections
from consensus.raft.elections import Log, Voter
from consensus.raft.messages import Message
from omni.kernel import clock

_FOLLOWER, _LEADER = 0, 2
_SKIPPED_TERMS = 1000


class Campaigning:
    """A part of core."""

    _SyncObj__raftLeader: Any

    def _consider_campaign(self: Any, now: float) -> None:
        election = self._election
        if self._SyncObj__raftState == _LEADER:
            return
        if self._SyncObj__transferInProgress and self.is_voter and not self.fresh:
            election.clear()
        if election.cleared or now < election.due(willing=self.willing) or not self.is_voter or not self._may_vote():
            return
        if not self.otherNodes:
            election.clear()
            return
        round = election.ask(now)
        for peer in self.otherNodes:
            if peer in self._SyncObj__connectedNodes:
                question = {"type": "pre_vote", "term": self.term + 1, "round": round}
                self._SyncObj__transport.send(peer, question | self._log_end())

    def _hears_leader(self: Any, now: float) -> bool:
        if self._SyncObj__raftState == _LEADER:
            return bool(now < self.lease_until)
        return bool(self._election.hears_leader(now))

    def _may_vote(self: Any) -> bool:
        """A fresh member has forgotten what it promised; only where a majority is fresh is there nothing to forget."""
        fresh = 1 + len(self.fresh_peers & {peer.id for peer in self.otherNodes})
        return not self.fresh or 2 * fresh > len(self.otherNodes) + 1

    def _no_longer_fresh(self: Any) -> None:
        self.journal.meta.fresh = False
        self.journal.meta.save()

    def _log_end(self: Any) -> dict[str, int]:
        return {"last_log_index": self.journal[-1][1], "last_log_term": self.journal[-1][2]}

    def _on_question(self: Any, node: Any, message: Message) -> None:
        now = clock.monotonic()
        hears = self._hears_leader(now)
        waited = now - self._election.started_at > self.timings.fresh_wait_s
        if self.fresh and not hears and not self._may_vote() and waited:
            # The others cannot do without us. Whatever we voted in before we forgot, these terms are beyond it.
            self._adopt(max(self.term, self.highest_term, message["term"]) + _SKIPPED_TERMS)
            self._no_longer_fresh()
        mine = Log(self.journal[-1][2], self.journal[-1][1])
        voter = Voter(self.term, self._SyncObj__votedForNodeId, mine, hears, self._may_vote() and self.is_voter)
        theirs = Log(message["last_log_term"], message["last_log_index"])
        granted = elections.grants(voter, node.id, message["term"], theirs)
        answer = {"type": "pre_vote_answer", "term": self.term, "round": message["round"], "granted": granted}
        self._SyncObj__transport.send(node, answer)

    def _on_answer(self: Any, node: Any, message: Message) -> None:
        voters = len(self.otherNodes) + 1
        if self._SyncObj__raftState == _LEADER:
            return
        self._election.answered(node.id, message["round"], granted=message["granted"], voters=voters)
        if not message["granted"] and not self._hears_leader(clock.monotonic()):
            self._adopt(message["term"])

    def _adopt(self: Any, term: int) -> None:
        """There was a later term: whoever led in an earlier one leads no more."""
        self.highest_term = max(self.highest_term, term)
        if term > self.term:
            self._SyncObj__setCurrentTerm(term, None)
            self._SyncObj__setState(_FOLLOWER)
            self._SyncObj__raftLeader = None

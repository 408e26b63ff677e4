"""A follower's side of the log: entries and snapshots as they arrive from the leader.

Owns what PySyncObj does too coarsely there. It deletes and adds again whatever follows a message's first entry (a crash
in between loses entries that were promised), marks a follower's own stray entries as committed when a snapshot's chunk
arrives, drops entries behind a snapshot that fits them, and walks back one entry a heartbeat after a mismatch. Knows
PySyncObj only by the names of its fields; core joins the two.
"""

from __future__ import annotations

import logging
from typing import Any

from consensus.raft import entries, machine, snapshot
from consensus.raft.elections import Election
from consensus.raft.journal import Damaged, Journal, sync_folder
from consensus.raft.messages import Message
from consensus.raft.snapshot import Snapshot
from omni.kernel import clock

_log = logging.getLogger("omni.raft")
_UNKNOWN_OUTCOME = 7  # FAIL_REASON's


class Diverged(Exception):
    """The leader's log contradicts what this member holds as committed: its files belong to another history."""


class Replication:
    """A part of core."""

    journal: Journal
    state: machine.State
    _election: Election
    _stamps: dict[str, int]
    _incoming: snapshot.Incoming

    def _on_append(self: Any, node: Any, message: Message) -> None:
        """From whoever leads, or led: entries, a part of a snapshot, or nothing but a sign of life."""
        if message["term"] < self.term:
            self._SyncObj__transport.send(node, {"type": "higher_term", "term": self.term})
            return
        self._election.heard(clock.monotonic())
        self._stamps[node.id] = message["at"]
        if "serialized" in message:
            self._on_chunk(node, message)
        else:
            self._on_entries(node, message)
        if self.fresh and self.commit_index >= message["commit_index"]:
            self._no_longer_fresh()  # everything that was committed without us is here now

    def _on_entries(self: Any, node: Any, message: Message) -> None:
        previous, new = message.get("prevLogIdx"), list(message.get("entries", ()))
        position = self.journal.position(previous) if previous is not None else None
        if position is None:
            self._plainly(node, message)  # it answers with what comes next here
            return
        if self.journal[position][2] != message["prevLogTerm"]:
            self._sign_of_life(node, message, self.commit_index)
            self._answer(node, self.commit_index + 1, success=False)  # committed entries are the same everywhere
            return
        while new and position + 1 < len(self.journal) and self.journal[position + 1][1:] == new[0][1:]:
            new.pop(0)
            position += 1
        matched = self.journal[position][1]
        if not new:
            self._sign_of_life(node, message, min(message["commit_index"], matched))
            self._answer(node, matched + 1, success=True)
            return
        if position + 1 < len(self.journal) and matched < self.commit_index:
            raise Diverged(f"entry {matched + 1} is committed here and another one on the leader {node.id}")
        rest = {"entries": new, "prevLogIdx": matched, "prevLogTerm": self.journal[position][2]}
        self._plainly(node, {**message, **rest})

    def _on_chunk(self: Any, node: Any, message: Message) -> None:
        """Whatever the leader has committed: nothing of our own log is thereby."""
        self._sign_of_life(node, message, self.commit_index)
        try:
            whole = self._incoming.add(message["serialized"]) if message["serialized"] else None
        except Damaged as damage:
            _log.warning("%s; asking again", damage)
            whole = None
        if whole is None:
            self._SyncObj__sendNextNodeIdx(node, success=False, reset=False)
            return
        position = self.journal.position(whole.last[1])
        if whole.last[1] > self.commit_index and (position is None or self.journal[position] != whole.last):
            self._install(whole)
        self._answer(node, max(whole.last[1], self.commit_index) + 1, success=True)

    def _install(self: Any, whole: Snapshot) -> None:
        """First the snapshot's file, durably; then the journal, which `storage` would make fit after a crash."""
        temporary = self._snapshot_path.with_name("snapshot.new")
        snapshot.write(temporary, whole)
        temporary.replace(self._snapshot_path)
        sync_folder(self._snapshot_path.parent)
        self.journal.clear()
        self.journal.add(*whole.previous)
        self.journal.add(*whole.last)
        self.journal.sync()
        self.state = whole.state
        self._SyncObj__raftLastApplied = whole.last[1]
        self._SyncObj__raftCommitIndex = whole.last[1]
        self.journal.setRaftCommitIndex(whole.last[1])
        self._SyncObj__lastSerializedEntry = whole.previous[1]
        self._lost_sight(whole.last[1])
        self._follow_membership()
        _log.info("took the leader's snapshot up to entry %d", whole.last[1])

    def _sign_of_life(self: Any, node: Any, message: Message, commit_index: int) -> None:
        """The leader, its term and our time-out; nothing of the log but the commit index."""
        self._plainly(node, {"type": "append_entries", "term": message["term"], "commit_index": commit_index})

    def _answer(self: Any, node: Any, following: int, *, success: bool) -> None:
        self._SyncObj__sendNextNodeIdx(node, nextNodeIdx=following, success=success, reset=not success)

    def _follow_membership(self: Any) -> None:
        """Voters from the applied state and the entries behind it."""
        voters = entries.voters(self.state, self._founders)
        first = self.journal.position(self.applied_index + 1)
        for entry, _, _ in self.journal[first:] if first is not None else []:
            change = entries.change_in(entry)
            voters = change.to_voters(voters) if change else voters
        self.is_voter = self.me in voters
        self._SyncObj__updateClusterConfiguration(
            [self._peer(id, address) for id, address in voters.items() if id != self.me]
        )
        for peer in self.otherNodes:
            self._SyncObj__lastResponseTime.setdefault(peer, clock.monotonic())

    def _lost_sight(self: Any, index: int) -> None:
        """Commands up to here were applied inside a snapshot, or not: their proposers cannot be told."""
        waiting = self._SyncObj__commandsWaitingCommit
        for place in [place for place in waiting if place <= index]:
            for _, callback in waiting.pop(place):
                callback(None, _UNKNOWN_OUTCOME)

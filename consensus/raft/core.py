"""Raft itself: PySyncObj 0.3.17, and what it lacks. The only file that imports it.

Owns one member's part in elections and in the replicated log. PySyncObj counts votes, replicates and commits; this
subclass gives it a durable log (`journal`), a network that speaks no pickle (`links`), JSON commands with one entry
point (`machine.apply`), and mends what was found broken, each with a test:
- pre-vote and haste (`elections`), a lease that ends before anybody else can be elected;
- a snapshot never marks a follower's own stray entries as committed, and never drops entries that fit it;
- entries that a follower has already are left alone (it deletes and adds them again: a crash between loses them);
- answers of an earlier term are not counted; a member stuck with a higher term is heard;
- membership is what the log says, also after a restart.
It leans on private names: that is why the version is pinned and checked. One thread calls everything here.
"""

from __future__ import annotations

import _socket
import logging
import math
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, syncobj
from pysyncobj.node import Node
from pysyncobj.version import VERSION

from consensus.raft import entries, machine, snapshot
from consensus.raft.campaigning import Campaigning
from consensus.raft.elections import Election, Timings
from consensus.raft.entries import NO_OP, Change, make_change, make_command
from consensus.raft.journal import DiskFailed, Journal
from consensus.raft.messages import COMMAND_MAX, Message
from consensus.raft.observed import Observed
from consensus.raft.replication import Replication
from consensus.raft.snapshot import Snapshot
from consensus.raft.storage import Opened
from consensus.raft.wire import Network, Wire
from omni.kernel import clock

_log = logging.getLogger("omni.raft")
_TESTED_WITH = "0.3.17"
if VERSION != _TESTED_WITH:
    raise ImportError(f"consensus.raft.core was made for pysyncobj {_TESTED_WITH} and its private names, not {VERSION}")
# It puts a function for Windows in the place of socket.inet_ntop, on every system and for the whole process.
socket.inet_ntop = _socket.inet_ntop
# Its own clock is CLOCK_MONOTONIC_RAW, which runs apart from everybody else's.
syncobj.monotonicTime = lambda: clock.monotonic()  # noqa: PLW0108 - tests replace it

_LEADER = 2
_NEVER_APPLIED = {
    FAIL_REASON.QUEUE_FULL,
    FAIL_REASON.MISSING_LEADER,
    FAIL_REASON.DISCARDED,
    FAIL_REASON.NOT_LEADER,
    FAIL_REASON.REQUEST_DENIED,
}
_RAFTS_OWN = {"request_vote", "response_vote", "timeout_now", "apply_command", "apply_command_response"}
# A leader that our log does not know yet is followed all the same; nobody unknown gets a vote or counts for anything.
_FROM_VISITORS = {"append_entries", "higher_term", "timeout_now", "apply_command_response"}
_FROM_VISITORS |= {"ping", "transfer_answer", "bye"}
_LATE_S = 0.03
_COMPACT_AGAIN_S = 10.0

Outcome = str  # "applied", "not_applied", "unknown"
Done = Callable[[machine.Reply | None, Outcome], None]


class Peer(Node):  # type: ignore[misc]
    """A voter as PySyncObj wants one: equal by id."""

    def __init__(self, id: str, address: str = "") -> None:
        super().__init__(id, address=address)

    def __hash__(self) -> int:
        """The same in every process, so that a simulated run can be repeated."""
        return zlib.crc32(self.id.encode())


class Core(Campaigning, Replication, Observed, SyncObj):  # type: ignore[misc]
    """`founders` are the configuration's members, `{id: Raft address}`: they count until the log says who is one.

    `other` gets the messages that are not Raft's. Call `step` for ever; everything happens inside it.
    """

    def __init__(
        self,
        me: str,
        founders: dict[str, str],
        timings: Timings,
        files: Opened,
        network: Network,
        other: Callable[[str, Message], None] = lambda _peer, _message: None,
        compact_after: int = 2000,
    ) -> None:
        self.me, self.timings = me, timings
        self.journal: Journal = files.journal
        self.willing = True
        self.able_peers: set[str] = set()
        self.fresh_peers: set[str] = set()
        self.highest_term = 0  # that anybody told us of
        self.state = files.snapshot.state if files.snapshot else machine.empty()
        self.transferring = False
        self._election = Election(timings, clock.monotonic())
        self._other, self._snapshot_path = other, files.snapshot_path
        self._my_address = founders.get(me, "")
        self._founders = dict(founders)
        self._founded = False
        self._stamps: dict[str, int] = {}  # of each leader's last message, by its own clock
        self._acknowledged: dict[str, float] = {}
        self._incoming = snapshot.Incoming()
        self._polled_at = clock.monotonic()
        self._compact_at = 0.0
        self.is_voter = True
        self._peer = Peer
        wire = Wire(network, self._outgoing, Peer)
        SyncObj.__init__(self, Peer(me), [], self._conf(compact_after), nodeClass=Peer, transport=wire)
        self._restore(files.snapshot)
        self._follow_membership()

    def _conf(self, compact_after: int) -> SyncObjConf:
        return SyncObjConf(
            autoTick=False,
            useFork=False,
            commandsQueueSize=1000,
            commandsWaitLeader=False,
            appendEntriesUseBatch=False,
            raftMinTimeout=self.timings.election_min_s,
            raftMaxTimeout=self.timings.election_max_s,
            appendEntriesPeriod=self.timings.heartbeat_s,
            leaderFallbackTimeout=self.timings.lease_s,
            connectionTimeout=max(2.0, self.timings.election_max_s),
            dynamicMembershipChange=True,
            journalFile=None,  # ours takes its place below
            fullDumpFile=str(self._snapshot_path),
            serializer=self._write_snapshot,
            deserializer=_never,  # `_restore` and `_install` do it
            logCompactionMinEntries=compact_after,
            logCompactionMinTime=3600,
        )

    def _restore(self, saved: Snapshot | None) -> None:
        """What PySyncObj's constructor does with a journal of its own."""
        if len(self.journal) == 0:
            self.journal.add(NO_OP, 1, 0)
        self._SyncObj__raftLog = self.journal
        self._SyncObj__raftCurrentTerm = max(self.journal.getCurrentTerm(), self.journal[-1][2])
        self._SyncObj__votedForNodeId = self.journal.getVotedForNodeId()
        self._SyncObj__raftCommitIndex = min(self.journal.getRaftCommitIndex(), self.journal[-1][1])
        self._SyncObj__raftLastApplied = saved.last[1] if saved else 1
        self._SyncObj__needLoadDumpFile = False

    # What others ask.

    @property
    def poller(self) -> Any:
        """`subscribe(fd, callback(fd, events), mask)`; 1 read, 2 write, 4 error. Callbacks run inside `step`."""
        return self._poller

    # What others want.

    def submit(self, command: machine.Command, done: Done) -> None:
        """Through whoever leads. `done` is called once at most, inside a later step; it must not raise."""
        entry = make_command(command)
        if len(entry) > COMMAND_MAX:
            done({"ok": False, "code": "bad_command", "message": "the command is too long"}, "applied")
            return
        self._applyCommand(entry, _callback(done))

    def add_voter(self, id: str, address: str, done: Done) -> None:
        self._change_voters("add", id, address, done)

    def remove_voter(self, id: str, done: Done) -> None:
        """Not the leader itself: that one hands over first."""
        self._change_voters("rem", id, self.voters.get(id, ""), done)

    def _change_voters(self, verb: Literal["add", "rem"], id: str, address: str, done: Done) -> None:
        if (id in self.voters) == (verb == "add"):
            done({"ok": True}, "applied")
            return
        self._applyCommand(make_change(Change(verb, id, address)), _callback(done))

    def step(self, longest_s: float) -> None:
        """One round: what is due, then wait for messages, at most `longest_s`. Raises DiskFailed, Diverged."""
        now = clock.monotonic()
        if now - self._polled_at > _LATE_S:
            self._poller.poll(0)  # we were held up: what came meanwhile is known before anything is decided
        if now - self._polled_at > self.timings.lease_s / 2:
            _log.warning("held up for %.2f s: the machine or its disk is too busy", now - self._polled_at)
        if self._SyncObj__raftState == _LEADER:
            self.journal.sync()  # its own copy counts for the majority from here on
        self._consider_campaign(clock.monotonic())
        self._onTick(self._pause(longest_s))
        self._polled_at = clock.monotonic()
        if self._founded:
            self._founded = False
            self._follow_membership()
        if self.fresh and self.established:
            self._no_longer_fresh()

    def before_wait(self, call: Callable[[], None]) -> None:
        """`call` runs in each step when all is decided and nothing has been waited for yet."""
        self.addOnTickCallback(call)

    def _pause(self, longest_s: float) -> float:
        if self._SyncObj__raftState == _LEADER:
            due = self._SyncObj__newAppendEntriesTime
        elif self._election.cleared:
            due = 0.0
        elif self.is_voter and self._may_vote():
            due = self._election.due(willing=self.willing)
        else:
            due = math.inf
        return float(max(0.0, min(longest_s, due - clock.monotonic())))

    # Leadership.

    @property
    def _SyncObj__raftElectionDeadline(self) -> float:  # noqa: N802
        """PySyncObj campaigns when this is past: only after a majority said that it would vote for us."""
        return 0.0 if self._election.cleared else math.inf

    @_SyncObj__raftElectionDeadline.setter
    def _SyncObj__raftElectionDeadline(self, deadline: float) -> None:  # noqa: N802
        self._election.deadline = deadline
        self._election.stand(clock.monotonic())

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        self._acknowledged = {}
        super()._SyncObj__onBecomeLeader()
        self.journal.sync()  # a single voter commits in this very tick

    def _SyncObj__onNodeDisconnected(self, node: Peer) -> None:  # noqa: N802
        super()._SyncObj__onNodeDisconnected(node)
        self._acknowledged.pop(node.id, None)
        if node == self._SyncObj__raftLeader and self._SyncObj__raftState != _LEADER:
            self._SyncObj__raftLeader = None
            self._SyncObj__onLeaderChanged()
            rivals = {peer.id for peer in self._SyncObj__connectedNodes & self.otherNodes}
            rivals = rivals & self.able_peers or rivals
            self._election.leader_gone(clock.monotonic(), sum(1 for id in rivals if id < self.me))

    def prepare_transfer(self) -> None:
        """The lease ends and commands wait, before anybody is told to take over; `abandon_transfer` undoes it."""
        self.transferring = True

    def abandon_transfer(self) -> None:
        self.transferring = False

    def hand_over(self, to: str) -> bool:
        """Tell `to` to campaign now; False: it has not caught up, or is not connected."""
        peer = Peer(to)
        if self.role != "leader" or not self.connected(to) or self.lag(to) != 0:
            return False
        self.journal.sync()
        self.transferLeadership(peer)
        return True

    # Messages.

    def _SyncObj__onMessageReceived(self, node: Peer, message: Message) -> None:  # noqa: N802
        kind = message["type"]
        if node not in self.otherNodes and kind not in _FROM_VISITORS:
            if kind == "pre_vote":
                self._SyncObj__transport.send(node, {"type": "bye", "reason": f"{node.id} is no member any more"})
            return
        if kind == "append_entries":
            self._on_append(node, message)
        elif kind == "next_node_idx":
            self._on_progress(node, message)
        elif kind == "pre_vote":
            self._on_question(node, message)
        elif kind == "pre_vote_answer":
            self._on_answer(node, message)
        elif kind == "higher_term":
            self._adopt(message["term"])
        elif kind == "request_vote" and not (self._may_vote() and self.is_voter):
            return
        elif kind in _RAFTS_OWN:
            self._plainly(node, message)
        else:
            self._other(node.id, message)

    def _plainly(self, node: Peer, message: Message) -> None:
        SyncObj._SyncObj__onMessageReceived(self, node, message)

    def _outgoing(self, node: Peer, message: Message) -> None:
        """What every message of Raft needs before it leaves: what it promises is durable."""
        kind = message["type"]
        if kind == "append_entries":
            message["at"] = int(clock.monotonic() * 1e6)
        elif kind == "next_node_idx":
            self.journal.sync()
            message["term"] = self.term
            message["echo"] = self._stamps.get(node.id, 0)
        elif kind in ("request_vote", "response_vote"):
            self.journal.sync()

    def _on_progress(self, node: Peer, message: Message) -> None:
        """A follower's answer. One of an earlier term says nothing about its log of today."""
        if message["term"] != self.term or self._SyncObj__raftState != _LEADER:
            return
        self._acknowledged[node.id] = max(self._acknowledged.get(node.id, 0.0), message["echo"] / 1e6)
        self._plainly(node, message)
        if message["reset"]:
            self._SyncObj__newAppendEntriesTime = 0.0  # it waits for what it lacks

    # The log.

    def _SyncObj__doApplyCommand(self, entry: bytes) -> machine.Reply:  # noqa: N802
        """Every committed entry passes here once, on every member, and nothing may raise."""
        founded = bool(self.state["cluster"])
        self.state, reply = entries.apply(self.state, entry, self.applied_index + 1)
        if not founded and self.state["cluster"]:
            self._founded = True  # followed after the tick: PySyncObj is in the middle of its list of voters
        return reply

    def _SyncObj__parseChangeClusterRequest(self, entry: bytes) -> list[Any] | None:  # noqa: N802
        change = entries.change_in(entry)
        return None if change is None else [change.verb, change.id, Peer(change.id, change.address)]

    def _SyncObj__doChangeCluster(self, request: list[Any], reverse: bool = False) -> bool:  # noqa: N802
        """As soon as the entry is in the log. A leader does not take itself out: it hands over first."""
        if request[1] != self.me:
            return bool(super()._SyncObj__doChangeCluster(request, reverse))
        if self._SyncObj__raftState != _LEADER:
            self.is_voter = (request[0] == "add") != reverse
        return False

    def _checkCommandsToApply(self) -> None:  # noqa: N802
        """Commands wait while the leadership moves: the one that takes over is to have the whole log."""
        if not self.transferring:
            super()._checkCommandsToApply()

    def _SyncObj__tryLogCompaction(self) -> None:  # noqa: N802
        """A full disk does not end a member for a file that it can do without."""
        now = clock.monotonic()
        if now < self._compact_at:
            return
        try:
            super()._SyncObj__tryLogCompaction()
        except DiskFailed as failure:
            _log.warning("%s", failure)
            self._compact_at = now + _COMPACT_AGAIN_S

    def _write_snapshot(self, path: str, data: tuple[Any, ...]) -> None:
        """PySyncObj calls it with a temporary name: (last applied entry, the one before it, voters)."""
        try:
            snapshot.write(Path(path), Snapshot(self.state, data[0], data[1]))
        except OSError as error:
            _log.warning("the snapshot cannot be written: %s", error.strerror)
            self._compact_at = clock.monotonic() + _COMPACT_AGAIN_S
            raise

    def close(self) -> None:
        """Connections and files. The journal is made durable."""
        self._doDestroy()


def _callback(done: Done) -> Callable[[machine.Reply | None, int], None]:
    def finished(reply: machine.Reply | None, reason: int) -> None:
        if reason == FAIL_REASON.SUCCESS:
            done(reply, "applied")
        else:
            done(None, "not_applied" if reason in _NEVER_APPLIED else "unknown")

    return finished


def _never(_path: str) -> None:
    raise AssertionError("PySyncObj loads no snapshot here")

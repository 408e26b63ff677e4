"""For tests: members of a cluster in one process, with time, network, crashes and power cuts under control.

Owns a world in which the same seed gives the same run. The members are real (`core`, PySyncObj, journal on disk); only
clock, network and what a disk keeps are made up. Every message passes the real codec. `World` checks, at every moment,
what must never happen; a broken rule raises AssertionError.
"""

from __future__ import annotations

import heapq
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consensus.raft import entries, journal, messages
from consensus.raft.core import Core
from consensus.raft.elections import Timings
from consensus.raft.messages import Message
from consensus.raft.storage import NAMES, open_files
from omni.kernel import clock

TICK_S = 0.01
TORN_AFTER_S = 2.5  # a silent connection is given up
TIMINGS = Timings()
_APPLY = entries.apply


class Endpoint:
    """One member's network: TCP as it behaves, in order, late, and broken after a silence."""

    def __init__(self, world: World, me: str) -> None:
        self.world, self.me = world, me
        self.peers: set[str] = set()
        self.up_with: set[str] = set()

    def listen(
        self, heard: Callable[[str, Message], None], up: Callable[[str], None], down: Callable[[str], None]
    ) -> None:
        self.heard, self.up, self.down = heard, up, down

    def send(self, peer: str, message: Message) -> None:
        if peer in self.up_with:
            self.world.carry(self.me, peer, messages.encode(message))

    def add(self, peer: str, address: str) -> None:
        self.peers.add(peer)

    def drop(self, peer: str) -> None:
        self.peers.discard(peer)
        self.world.hang_up(self.me, peer)

    def close(self) -> None:
        for peer in list(self.up_with):
            self.world.hang_up(self.me, peer)


class World:
    """`patch` is pytest's monkeypatch: the clock and the disk's durability are replaced for as long as it lasts."""

    def __init__(self, folder: Path, ids: list[str], seed: int, patch: Any, core: type[Core] = Core) -> None:
        self.random = random.Random(seed)  # noqa: S311
        random.seed(seed)  # PySyncObj's and ours
        self.now = 1000.0
        self.folder, self.ids, self.core_class = folder, ids, core
        self.members: dict[str, Core] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.cuts: dict[frozenset[str], float] = {}  # since when
        self.frozen: set[str] = set()
        self.applied: dict[int, bytes] = {}
        self.outcomes: dict[str, str] = {}
        self.led_in: dict[int, str] = {}  # term -> leader
        self.compact_after = 1_000_000
        self.detail = ""
        self.latency = (0.0001, 0.003)
        self.settings: dict[str, Any] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._arrives: dict[tuple[str, str], float] = {}
        self._held: dict[tuple[str, str], list[bytes]] = {}
        self._durable: dict[str, bytes] = {}
        patch.setattr(clock, "monotonic", lambda: self.now)
        patch.setattr(journal, "_RESERVE", 4096)
        patch.setattr(journal, "datasync", self._datasync)
        patch.setattr(entries, "apply", self._apply)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for id in list(self.members):
            self.crash(id)

    # The members' life.

    def start(self, *ids: str) -> None:
        for id in ids:
            endpoint = self.endpoints[id] = Endpoint(self, id)
            founders = {other: f"{other}:1" for other in self.ids}
            files = open_files(self.folder / id)
            self.members[id] = self.core_class(
                id, founders, TIMINGS, files, endpoint, compact_after=self.compact_after, **self.settings
            )
            self._at(self.now + self.random.uniform(0, TICK_S), self._tick_of(id, self.members[id]))

    def crash(self, id: str, *, power_cut: bool = False) -> None:
        """kill -9; with `power_cut` everything is lost that was not made durable."""
        member = self.members.pop(id)
        self.endpoints[id].close()
        del self.endpoints[id]
        self.frozen.discard(id)
        os.close(member.journal._fd)
        member.journal.meta.close()
        for end in ("R", "W"):
            os.close(getattr(member._SyncObj__pipeNotifier, f"_PipeNotifier__pipe{end}"))
        if power_cut:
            for name in NAMES:
                path = self.folder / id / name
                if path.exists():
                    path.write_bytes(self._durable.get(str(path), b""))

    def wipe(self, id: str) -> None:
        for path in (self.folder / id).iterdir():
            path.unlink()

    # The network.

    def cut(self, one: str, other: str) -> None:
        self.cuts.setdefault(frozenset((one, other)), self.now)

    def isolate(self, id: str) -> None:
        for other in self.ids:
            if other != id:
                self.cut(id, other)

    def heal(self) -> None:
        """Held messages arrive where the connection was not given up meanwhile."""
        self.cuts.clear()
        for (one, other), frames in list(self._held.items()):
            for frame in frames:
                self.carry(one, other, frame)
        self._held.clear()

    def carry(self, one: str, other: str, frame: bytes) -> None:
        if frozenset((one, other)) in self.cuts:
            self._held.setdefault((one, other), []).append(frame)
            return
        arrives = max(self._arrives.get((one, other), 0.0), self.now + self.random.uniform(*self.latency))
        self._arrives[one, other] = arrives
        receiver = self.endpoints.get(other)
        self._at(arrives, lambda: self._deliver(one, other, receiver, frame))

    def hang_up(self, one: str, other: str) -> None:
        """Both sides see the connection close; what was on its way is lost."""
        self._held.pop((one, other), None)
        self._held.pop((other, one), None)
        for here, there in ((one, other), (other, one)):
            endpoint = self.endpoints.get(here)
            if endpoint is not None and there in endpoint.up_with:
                endpoint.up_with.discard(there)
                endpoint.down(there)

    def _deliver(self, one: str, other: str, receiver: Endpoint | None, frame: bytes) -> None:
        if receiver is None or self.endpoints.get(other) is not receiver or one not in receiver.up_with:
            return
        if other in self.frozen:
            self._at(self.now + 0.05, lambda: self._deliver(one, other, receiver, frame))
            return
        receiver.heard(one, messages.decode(frame))

    def _connect(self) -> None:
        for pair, since in self.cuts.items():
            one, other = sorted(pair)
            if self.now - since > TORN_AFTER_S:
                self.hang_up(one, other)
        for one in self.endpoints:
            for other in self.endpoints:
                mine, theirs = self.endpoints[one], self.endpoints[other]
                if one < other and other not in mine.up_with and not ({one, other} & self.frozen):
                    if frozenset((one, other)) in self.cuts or not (other in mine.peers or one in theirs.peers):
                        continue
                    mine.up_with.add(other)
                    theirs.up_with.add(one)
                    mine.up(other)
                    theirs.up(one)

    # Time.

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as `until` holds."""
        end = self.now + seconds
        next_look = self.now
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
            self._check()
            if self.now >= next_look:
                next_look = self.now + 0.05
                self._connect()
                if until is not None and until():
                    return True
        self.now = end
        return until is not None and until()

    def _at(self, when: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, event))

    def _tick_of(self, id: str, member: Core) -> Callable[[], None]:
        return lambda: self._tick(id, member)

    def _tick(self, id: str, member: Core) -> None:
        if self.members.get(id) is not member:
            return
        if id not in self.frozen:
            member.fresh_peers = {peer for peer in self.endpoints[id].up_with if self.members[peer].fresh}
            member.step(0.0)
        self._at(self.now + TICK_S, self._tick_of(id, member))

    # What is asked of the cluster.

    def submit(self, id: str, name: str) -> None:
        def told(_reply: Any, outcome: str) -> None:
            _must(name not in self.outcomes, f"{name} was answered twice")
            self.outcomes[name] = outcome

        command = {"op": "service.set", "v": 1, "name": name, "state": "up", "since": "", "detail": self.detail}
        self.members[id].submit(command, told)

    def hand_over(self) -> None:
        """As the process does it: the lease ends, then somebody is told to take over, and it may come to nothing."""
        member = self.members.get(self.leader() or "")
        if member is not None and len(self.members) > 1:
            member.prepare_transfer()
            member.hand_over(self.random.choice([id for id in sorted(self.members) if id != member.me]))
            self._at(self.now + 0.5, member.abandon_transfer)

    def change_members(self, *, only_add: bool = False) -> bool:
        """Add who is missing, else take somebody out; False: there was nothing to do, or nobody to do it."""
        member = self.members.get(self.leader() or "")
        if member is None or not member.state["cluster"]:
            return False
        missing = sorted(set(self.ids) - set(member.voters))
        others = sorted(set(member.voters) - {member.me})
        if missing:
            member.add_voter(missing[0], f"{missing[0]}:1", lambda _reply, _outcome: None)
        elif others and not only_add:
            member.remove_voter(self.random.choice(others), lambda _reply, _outcome: None)
        return bool(missing)

    def found(self) -> bool:
        """Ask the leader to found the cluster, as its duties do; True once that is done."""
        member = self.members.get(self.leader() or "")
        if member is None:
            return False
        command = {"op": "cluster.init", "v": 1, "id": "c", "created_at": "t", "members": member.voters}
        member.submit(command, lambda _reply, _outcome: None)
        return bool(member.state["cluster"])

    def led(self, *started: str) -> str:
        """Start, and wait for the first leader."""
        self.start(*(started or self.ids))
        _must(self.run(5.0, self.settled), "no leader was elected")
        return str(self.leader())

    def write(self, name: str, through: str | None = None) -> None:
        self.submit(through or str(self.leader()), name)
        _must(self.run(2.0, lambda: name in self.outcomes), f"{name} was not answered")

    def leader(self) -> str | None:
        """The one with a lease."""
        for id, member in self.members.items():
            if id not in self.frozen and member.established and self.now < member.lease_until:
                return id
        return None

    def settled(self) -> bool:
        """Everybody follows one leader and has applied all that it has."""
        leader = self.leader()
        if leader is None:
            return False
        ends = {(member.leader, member.applied_index) for member in self.members.values()}
        return ends == {(leader, self.members[leader].journal[-1][1])}

    # What must never happen.

    def _apply(self, state: Any, entry: bytes, index: int) -> Any:
        known = self.applied.setdefault(index, entry)
        _must(known == entry, f"two different entries were applied at {index}: {known!r} and {entry!r}")
        return _APPLY(state, entry, index)

    def _check(self) -> None:
        leases = []
        for id, member in self.members.items():
            if member.role == "leader":
                other = self.led_in.setdefault(member.term, id)
                _must(other == id, f"{id} and {other} both led in term {member.term}")
                if member.established and self.now < member.lease_until:
                    leases.append(id)
        _must(len(leases) < 2, f"two leases at once: {leases}")

    def verdict(self) -> None:
        """After all is healed and settled: what was promised is there, what was refused is not."""
        state = self.members[self.leader() or ""].state
        for member in self.members.values():
            _must(member.state == state, f"{member.me} has another state than the leader")
        for name, outcome in self.outcomes.items():
            if outcome == "applied":
                _must(name in state["services"], f"{name} was acknowledged and is lost")
            if outcome == "not_applied":
                _must(name not in state["services"], f"{name} was refused and is there")

    def _datasync(self, fd: int) -> None:
        opened = Path(f"/proc/self/fd/{fd}")
        path = str(opened.readlink())
        for temporary in (".new", ".tmp"):
            path = path.removesuffix(temporary)  # nobody crashes between this and its renaming here
        self._durable[path] = opened.read_bytes()


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)

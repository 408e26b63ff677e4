"""One member's Raft process put together: core, network, socket and page, moved on by one thread.

Owns the loop, and what the parts tell each other. If the loop ends, the process ends; the page expires by itself.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consensus.raft import machine, status
from consensus.raft.core import Core
from consensus.raft.duties import EVERY_S, Duties
from consensus.raft.links import Links
from consensus.raft.messages import Message
from consensus.raft.page import RaftPageWriter, RaftView
from consensus.raft.requests import Requests
from consensus.raft.roster import Roster
from consensus.raft.server import Reply, SocketServer, done, failed
from consensus.raft.settings import Settings
from consensus.raft.storage import lock, open_files
from consensus.raft.transfer import Told, Transfer
from omni.kernel import clock

TICK_S = 0.05
PAGE_EVERY_S = 0.02
LEAVE_S = 2.0
_ASKED_FOR_S = 3.0
_log = logging.getLogger("omni.raft")


class RaftMember:
    """Raises OSError when the port or the socket cannot be had, DiskFailed, Diverged."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(settings.folder)
        self._lock = lock(self.folder)
        self.roster = Roster()
        self.links = Links(settings.identity, settings.listen, self._ping)
        self.core = Core(
            settings.me,
            settings.founders,
            settings.timings,
            open_files(self.folder),
            self.links,
            self._other_message,
            settings.compact_after,
        )
        self.requests = Requests(self.core, self)
        self.duties = Duties(self.core, self.roster, settings.cluster_id, lambda to: self.transfer(to, _quiet))
        self._transfer: Transfer | None = None
        self._asked: dict[int, tuple[float, Told]] = {}  # the leader was asked to hand over
        self._number = 0
        self._written: tuple[Any, ...] = ()
        self._write_at = self._duties_at = 0.0
        self._able = False
        self._announcer: object = None
        self._heard_byes: set[tuple[str, str]] = set()
        self.links.start(self.core.poller)
        self.page = RaftPageWriter(Path(settings.page))
        self.server = SocketServer(settings.socket, self.core.poller, self._request, self._client_gone)
        self.core.before_wait(self._write_page)

    def run(self) -> None:
        """Until SIGTERM or SIGINT; a leader hands over first."""
        stops: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _frame: stops.append(number))
        while not stops:
            self.step()
        if self.core.role == "leader" and self.links.connected():
            until = clock.monotonic() + LEAVE_S
            over: list[str] = []
            self.transfer(None, lambda leader, why: over.append(leader or why))
            while not over and clock.monotonic() < until and len(stops) < 2:
                self.step()
        self.close()

    def step(self) -> None:
        """One turn of the loop."""
        self.core.step(0.001 if self._transfer else 0.01 if self.requests.waiting else TICK_S)
        now = clock.monotonic()
        self.requests.step(now)
        if self._transfer is not None and self._transfer.step(now):
            self._transfer = None
        self._write_page()
        if now >= self._duties_at:
            self._duties_at = now + EVERY_S
            self._look_around(now)

    def close(self) -> None:
        self.page.close()
        self.server.close()
        self.core.close()
        os.close(self._lock)

    def transfer(self, to: str | None, told: Told) -> None:
        """Wherever the leader is; `told` hears the new leader's id, or why there is none."""
        core = self.core
        if core.role != "leader":
            self._ask_leader(to, told)
            return
        if to == core.me:
            told(core.me, "")
            return
        if self._transfer is None:
            connected = self.links.connected() & set(core.voters)
            fit = [to] if to in connected else [] if to else self._successors(connected)
            if not fit:
                told(None, f"{to} is not connected" if to else "there is nobody to take over")
                return
            self._transfer = Transfer(core, fit[0], clock.monotonic())
        self._transfer.tell(told)

    def _successors(self, connected: set[str]) -> list[str]:
        able = self.roster.able_among(connected)
        return able or sorted(connected, key=lambda peer: self.core.lag(peer) or 0)

    def _ask_leader(self, to: str | None, told: Told) -> None:
        if self.core.leader is None:
            told(None, "there is no leader")
            return
        self._number += 1
        self._asked[self._number] = (clock.monotonic() + _ASKED_FOR_S, told)
        self.links.send(self.core.leader, {"type": "transfer", "number": self._number, "to": to})

    def _other_message(self, peer: str, message: Message) -> None:
        kind = message["type"]
        if kind == "ping":
            self.roster.heard(peer, message)
            self.core.highest_term = max(self.core.highest_term, message["term"])
            self._weigh()
        elif kind == "transfer":
            number = message["number"]

            def told(leader: str | None, why: str) -> None:
                answer = {"type": "transfer_answer", "number": number, "leader": leader or "", "error": why}
                self.links.send(peer, answer)

            if self.core.role == "leader":
                self.transfer(message["to"], told)
            else:
                told(None, "asked a member that does not lead")
        elif kind == "transfer_answer":
            _, asked = self._asked.pop(message["number"], (0.0, _quiet))
            asked(message["leader"] or None, message["error"])
        elif kind == "bye" and (peer, message["reason"]) not in self._heard_byes:
            self._heard_byes.add((peer, message["reason"]))
            _log.warning("%s says: %s", peer, message["reason"])

    def _request(self, request: dict[str, Any], reply: Reply) -> None:
        handlers: dict[object, Callable[[dict[str, Any], Reply], None]] = {
            "status": lambda _request, reply: reply(done(status.of(self))),
            "announce": self._announced,
            "submit": self.requests.submit,
            "add": self.requests.add,
            "remove": self.requests.remove,
            "transfer": self.requests.transfer,
            "fault": self._fault,
        }
        op = request.get("op")
        handler = handlers.get(op) if isinstance(op, str) else None
        if handler is None:
            reply(failed("bad_request", "no such operation"))
        else:
            handler(request, reply)

    def _announced(self, request: dict[str, Any], reply: Reply) -> None:
        self._announcer = reply.client
        if self.roster.announce(request.get("able") is True):
            self._look_around(clock.monotonic())
        reply(done({}))

    def _client_gone(self, client: object) -> None:
        """A daemon that died cannot do a leader's work; waiting for its silence would cost a second."""
        if client is self._announcer and self.roster.announce(False):
            self._look_around(clock.monotonic())

    def _fault(self, request: dict[str, Any], reply: Reply) -> None:
        if not self.settings.faults:
            reply(failed("refused", "only for tests"))
            return
        self.links.cut({str(peer) for peer in request.get("drop", [])})
        reply(done({}))

    def _look_around(self, now: float) -> None:
        """A few times a second."""
        self.links.look_after(now)
        if self.roster.able() != self._able:
            self._able = self.roster.able()
            self.links.ping()
        self._weigh()
        self.duties.step(now, self.links.connected())
        for number, (until, told) in list(self._asked.items()):
            if now > until:
                del self._asked[number]
                told(None, "the leader did not answer")

    def _weigh(self) -> None:
        connected = self.links.connected() & set(self.core.voters)
        self.core.willing = self.roster.willing(connected)
        self.core.able_peers = set(self.roster.able_among(connected))
        self.core.fresh_peers = self.roster.fresh_among(connected)

    def _ping(self) -> Message:
        return self.roster.ping(self.core.term, self.core.applied_index, fresh=self.core.fresh)

    def _write_page(self) -> None:
        core, now = self.core, clock.monotonic()
        known = (core.role, core.term, core.leader, core.established)
        if known == self._written and now < self._write_at:
            return
        self._written, self._write_at = known, now + PAGE_EVERY_S
        role, term, leader, established = known
        valid_until = now + self.settings.timings.lease_s
        if role == "leader":
            valid_until = min(valid_until, core.lease_until)
        http = machine.http_of(leader) if leader else None
        commit, applied = core.commit_index, core.applied_index
        self.page.write(
            RaftView(role, term, http, established, valid_until, commit, os.getpid(), applied)  # type: ignore[arg-type]
        )


def _quiet(_leader: str | None, _why: str) -> None:
    """Nobody waits for this one."""

"""What the member's other processes ask for over the socket, carried to its end.

Owns each request from its line to its reply: tried again while it surely did not happen and there is time, answered
*unknown* when nobody can say. Runs on the Raft thread. What a leader does by itself is `duties`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from consensus.raft import machine
from consensus.raft.core import Core, Done
from consensus.raft.server import Reply, done, failed
from omni.kernel import clock

_AGAIN_S = 0.02
_LONGEST_S = 60.0
_REQUESTS_MAX = 1000


class Leading(Protocol):
    """Moves the leadership, wherever it is: on this member, or by asking the leader."""

    def transfer(self, to: str | None, told: Callable[[str | None, str], None]) -> None: ...


@dataclass(slots=True)
class _Pending:
    """One request that has not been answered. `attempt` is called again after it told `not_applied`."""

    attempt: Callable[[Done], None]
    reply: Reply
    deadline: float
    again_at: float = 0.0
    in_flight: bool = False
    over: bool = False


class Requests:
    def __init__(self, core: Core, leading: Leading) -> None:
        self._core, self._leading = core, leading
        self._pending: list[_Pending] = []

    def submit(self, request: dict[str, Any], reply: Reply) -> None:
        command = request.get("command")
        if not isinstance(command, dict):
            reply(failed("bad_request", "command: an object"))
            return
        self._begin(request, reply, lambda finished: self._core.submit(command, finished))

    def add(self, request: dict[str, Any], reply: Reply) -> None:
        id, address = request.get("member"), request.get("address")
        if not _is_member_id(id) or not _is_address(address):
            reply(failed("bad_request", "id: <address>-<port>; address: <host>:<Raft port>"))
            return
        if self._core.voters.get(str(id), address) != address:
            reply(failed("another_address", f"{id} is a member at {self._core.voters[str(id)]}: remove it first"))
            return

        def attempt(finished: Done) -> None:
            if not self._core.state["cluster"]:
                finished(None, "not_applied")  # before there is a cluster, the configuration says who is in it
            else:
                self._core.add_voter(str(id), str(address), finished)

        self._begin(request, reply, attempt)

    def remove(self, request: dict[str, Any], reply: Reply) -> None:
        id = request.get("member")
        if not _is_member_id(id):
            reply(failed("bad_request", "id: <address>-<port>"))
            return
        if set(self._core.voters) <= {id}:
            reply(failed("last_member", "the last member cannot be removed"))
            return

        def attempt(finished: Done) -> None:
            if self._core.leader == id:  # a leader cannot take itself out
                self._leading.transfer(None, lambda _leader, _why: None)
                finished(None, "not_applied")
            else:
                self._core.remove_voter(str(id), finished)

        self._begin(request, reply, attempt)

    def transfer(self, request: dict[str, Any], reply: Reply) -> None:
        to = request.get("to")
        if to is not None and to not in self._core.voters:
            reply(failed("no_member", f"{to} is no member"))
            return

        def told(leader: str | None, why: str) -> None:
            if leader is None:
                reply(failed("not_transferred", why))
            elif to is not None and leader != to:
                reply(failed("not_transferred", f"{leader} leads now"))
            else:
                reply(done({"leader": machine.http_of(leader), "id": leader}))

        self._leading.transfer(to, told)

    def step(self, now: float) -> None:
        """Once a tick: try again, and give up what is out of time."""
        for pending in list(self._pending):
            if pending.over:
                self._pending.remove(pending)
            elif now >= pending.deadline:
                unknown = pending.in_flight
                self._answer(pending, failed(*(_UNKNOWN if unknown else _UNAVAILABLE)))
                self._pending.remove(pending)
            elif not pending.in_flight and now >= pending.again_at:
                self._try(pending)

    @property
    def waiting(self) -> bool:
        return any(not pending.in_flight for pending in self._pending)

    def _begin(self, request: dict[str, Any], reply: Reply, attempt: Callable[[Done], None]) -> None:
        wanted = request.get("timeout_s", 3.0)
        seconds = float(wanted) if isinstance(wanted, int | float) and 0 < wanted <= _LONGEST_S else 3.0
        if len(self._pending) >= _REQUESTS_MAX:
            reply(failed("unavailable", "too many requests at once"))
            return
        pending = _Pending(attempt, reply, clock.monotonic() + seconds)
        self._pending.append(pending)
        self._try(pending)

    def _try(self, pending: _Pending) -> None:
        pending.in_flight = True

        def finished(result: machine.Reply | None, outcome: str) -> None:
            pending.in_flight = False
            if outcome == "applied":
                self._answer(pending, done(result or {"ok": True}))
            elif outcome == "unknown":
                self._answer(pending, failed(*_UNKNOWN))
            else:
                pending.again_at = clock.monotonic() + _AGAIN_S

        pending.attempt(finished)

    def _answer(self, pending: _Pending, reply: dict[str, Any]) -> None:
        if not pending.over:
            pending.over = True
            pending.reply(reply)


_UNKNOWN = ("unknown", "the leadership changed, or nobody answered in time; the command may have been applied")
_UNAVAILABLE = ("unavailable", "no leader accepted it in time; it was not applied")


def _is_member_id(value: object) -> bool:
    if not isinstance(value, str) or not 3 <= len(value) <= 260:
        return False
    host, _, port = value.rpartition("-")
    return bool(host) and port.isdecimal()


def _is_address(value: object) -> bool:
    if not isinstance(value, str) or len(value) > 260:
        return False
    host, _, port = value.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 65536

"""Who leads, seen from a request that waits for it: the lease page, asked often while somebody waits.

Owns waiting for a leader, and telling requests that are under way to a leader that another one has taken over. One
poll serves all of them, and none runs while nobody waits. A lease is read in about a microsecond.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from consensus.lease import ConsensusUnavailable, Held, Lease
from omni.kernel.errors import NoLeader

POLL_S = 0.02
GRACE_S = 0.2  # what a leader that handed over still may answer; a frozen one costs no more than this
AVOID_S = 0.25  # a leader that could not be reached is left alone by all requests for so long
Result = TypeVar("Result")


class Superseded(Exception):
    """Another member leads by now, and the former leader has not answered."""


@dataclass(slots=True, eq=False)
class _Flight:
    leader: str
    task: asyncio.Task[Any]
    since: float | None = None  # when another leader was seen first
    superseded: bool = False


@dataclass(slots=True)
class Leaders:
    """`me` is `"<host>:<port>"`; so are the leaders."""

    lease: Lease
    me: str
    _flights: set[_Flight] = field(default_factory=set)
    _watch: asyncio.Task[None] | None = None
    _avoided: dict[str, float] = field(default_factory=dict)

    def now(self) -> str | None:
        """`host:port` of the leader, which may be this member; None when nobody knows."""
        try:
            answer = self.lease.current()
        except ConsensusUnavailable:
            return None
        if isinstance(answer, Held):
            return self.me
        return answer.leader if answer.leader != self.me else None  # elected, but it has not claimed the fence yet

    async def await_one(self, deadline: float) -> str:
        """The leader. Raises NoLeader when there is none, or none that can be reached, until `deadline`."""
        while True:
            leader = self.now()
            now = time.monotonic()
            if leader is not None and self._avoided.get(leader, 0.0) <= now:
                return leader
            if now >= deadline:
                raise NoLeader("No leader was there within the time that a write waits.")
            await asyncio.sleep(POLL_S)

    def avoid(self, leader: str) -> None:
        """It could not be reached: whoever waits does not try at once, all together, again and again."""
        now = time.monotonic()
        self._avoided = {name: until for name, until in self._avoided.items() if until > now}
        self._avoided[leader] = now + AVOID_S

    async def during(self, leader: str, call: Coroutine[Any, Any, Result]) -> Result:
        """The call's result. Raises Superseded soon after another member has become leader."""
        flight = _Flight(leader, asyncio.create_task(call))
        self._flights.add(flight)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._poll())
        try:
            result: Result = await flight.task
            return result
        except asyncio.CancelledError:
            if flight.superseded:
                raise Superseded from None
            flight.task.cancel()  # the request itself was cancelled
            raise
        finally:
            self._flights.discard(flight)

    async def _poll(self) -> None:
        while self._flights:
            leader, now = self.now(), time.monotonic()
            for flight in self._flights:
                if leader is None or leader == flight.leader:
                    flight.since = None
                elif flight.since is None:
                    flight.since = now
                elif now - flight.since >= GRACE_S and not flight.superseded:
                    flight.superseded = True
                    flight.task.cancel()
            await asyncio.sleep(POLL_S)

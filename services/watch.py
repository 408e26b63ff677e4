"""The leader's watch over all services: look, decide, write what changed, open and resolve alerts.

Owns the order of a tick and what it remembers. Works on with the database down: what it thinks is told to the
replicated state, and written to the database when that is back. Decides nothing itself.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from django.conf import settings
from django.db import Error, connections

from consensus import gate
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull
from services import alerting, api_agent, outcomes, standings, watched
from services.alerting import Watched as Troubled
from services.board import Board
from services.decision import Memory, Votes, remember
from services.looking import Looks, PartSeen, look
from services.outcomes import Turned
from services.watched import Beat, Watched

EVERY_S = 1.0
LONGEST_S = 10.0
_SHARE = 20  # a tick takes at most a twentieth of the time
_PORTION = 200  # rows of one transaction
_DETAIL_AGAIN_S = 300.0  # other words for the same state are written so seldom
_log = logging.getLogger("omni.services")
_AWAY = (Error, DatabaseUnavailable, OutcomeUnknown, StorageFull)


@dataclass(slots=True)
class _Known:
    """One service between two ticks. `stored` is what its row says."""

    memory: Memory
    stored: Memory
    stored_at: float
    votes: Votes = Votes()  # noqa: RUF009 - frozen


@dataclass(slots=True)
class Watch:
    """One per leadership. `parts` asks the platform's own parts; `register` brings the platform's services in;
    `settle` writes down what was told of the database's death while it was away, before alerts are looked at."""

    board: Board
    parts: Callable[[], Mapping[str, PartSeen]]
    register: Callable[[list[str]], None] = lambda _nodes: None
    settle: Callable[[], None] = lambda: None
    _services: list[Watched] = field(default_factory=list)
    _known: dict[int, _Known] = field(default_factory=dict)
    _nodes: list[str] = field(default_factory=list)
    _beats: dict[int, Beat] | None = None
    _looks: Looks = field(default_factory=Looks)
    _tag: object = None
    _able_since: float | None = None

    def tick(self) -> float:
        """One look at everything; seconds until the next is wanted."""
        begun = clock.monotonic()
        now = clock.now().timestamp()
        reachable = self._refresh(now)
        parts = self.parts()
        self._looks.take(parts, self._services)
        self.board.read()
        self._look(now)
        standings.tell(self._records())
        if not reachable:
            return EVERY_S * 2  # the wait for the database took so long; when it is back its rows are old
        self._write(now)
        return min(max(EVERY_S, (clock.monotonic() - begun) * _SHARE), LONGEST_S)

    def _refresh(self, now: float) -> bool:
        """Read what people changed. False: the database is away, and everything stays as it was read."""
        try:
            self._nodes = api_agent.ready_nodes()
            self.register(self._nodes)
            newest = watched.tag()
            if newest != self._tag:
                self._take(watched.load(), now)
                self._tag = newest
            if any(service.type == "heartbeat" for service in self._services):
                self._beats = watched.beats()
        except _AWAY as error:
            if self._able_since is not None:
                _log.warning("services are watched without the database: %s", error)
            self._able_since, self._beats = None, None
            _drop_connections()
            return False
        if self._able_since is None:
            self._able_since = now
        return True

    def _take(self, services: list[Watched], now: float) -> None:
        self._services = services
        kept = {}
        for service in services:
            known = self._known.get(service.id)
            kept[service.id] = known or _Known(service.stored, service.stored, now)
        self._known = kept

    def _look(self, now: float) -> None:
        able_since = self._able_since if self._able_since is not None else now
        for service in self._services:
            known = self._known[service.id]
            found = look(
                service, known.memory, now, nodes=self._nodes, readings=self.board.readings, looks=self._looks,
                beats=self._beats, able_since=able_since,
            )  # fmt: skip
            known.memory, known.votes = remember(known.memory, found, now), found.votes

    def _write(self, now: float) -> None:
        actor = system("services")
        over = [s.id for s in self._services if s.maintenance_until is not None and s.maintenance_until <= now]
        try:
            if over:
                gate.run(lambda tx: outcomes.end_maintenance(tx, over), actor=actor, cause="maintenance is over")
            turned = self._turned(now)
            for start in range(0, len(turned), _PORTION):
                part = turned[start : start + _PORTION]
                gate.run(lambda tx, part=part: outcomes.write_states(tx, part), actor=actor, cause="service checks")  # type: ignore[misc]
                for one in part:
                    known = self._known[one.id]
                    known.stored, known.stored_at = one.memory, now
            self.settle()
            self._alert(now)
        except _AWAY as error:
            _log.warning("what services came to is written later: %s", error)
            _drop_connections()

    def _turned(self, now: float) -> list[Turned]:
        found = []
        for service in self._services:
            known = self._known[service.id]
            memory, stored = known.memory, known.stored
            changed = (memory.state, memory.reason, memory.flapping) != (stored.state, stored.reason, stored.flapping)
            other_words = memory.detail != stored.detail and now - known.stored_at > _DETAIL_AGAIN_S
            if changed or other_words:
                found.append(Turned(service.id, service.name, stored.state, memory, known.votes))
        return found

    def _alert(self, now: float) -> None:
        troubled = [self._troubled(service) for service in self._services]
        actions = alerting.plan(troubled, outcomes.standing(), now, settings.CONFIG.alerts.group_s)
        actor = system("services")
        for start in range(0, len(actions), _PORTION):
            part = actions[start : start + _PORTION]
            gate.run(lambda tx, part=part: outcomes.carry_out(tx, part), actor=actor, cause="service checks")  # type: ignore[misc]
        untold = outcomes.unannounced(dt.datetime.fromtimestamp(now, dt.UTC))
        if untold:
            gate.run(lambda tx: outcomes.announce(tx, untold[:_PORTION]), actor=actor, cause="alerts")

    def _troubled(self, service: Watched) -> Troubled:
        memory = self._known[service.id].memory
        return Troubled(
            service.id, service.name, memory.state, service.severity, memory.reason, memory.detail, memory.flapping,
            memory.since, service.depends_on, service.interval_s * (service.unhealthy_threshold - 1),
            service.interval_s * service.unhealthy_threshold + service.timeout_s,
        )  # fmt: skip

    def _records(self) -> dict[str, dict[str, str]]:
        found = {}
        for service in self._services:
            memory = self._known[service.id].memory
            since = str(clock.rfc3339(dt.datetime.fromtimestamp(memory.since, dt.UTC)))
            found[service.name] = {"state": memory.state, "since": since, "detail": memory.detail[:200]}
        return found


def _drop_connections() -> None:
    """What broke is opened anew by the next tick."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()

"""Several servers with the same data (a Galera cluster): which of them this process uses.

Owns the choice: the one that worked last, else the first in the order of the URL that answers in time and is ready to
serve. All connections of the process keep to one server, so that what one thread has read the others can read too.
One lock-protected state for each list of servers. Knows the driver only by the function that it is given.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from omni.kernel import clock

AVOID_S = 5.0  # a server that failed is tried again only after so long, unless no other answers
GIVE_UP_S = 2.5  # how long one attempt to connect may go on from server to server
# Can't connect, gone, lost, shutting down, killed, too many connections, read-only, not ready (Galera without quorum).
LOST = frozenset({2002, 2003, 2005, 2006, 2013, 2055, 1053, 1077, 1079, 1927, 1040, 1290, 1047})
_log = logging.getLogger("omni.database")
Connection = TypeVar("Connection")


class NotReady(Exception):
    """The server answers and serves nobody: a Galera node without its cluster."""


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(slots=True)
class Servers:
    """`connect` and `lost` may be called from any thread."""

    servers: tuple[Server, ...]
    _good: Server | None = None
    _failed: dict[Server, float] = field(default_factory=dict)  # when, on the monotonic clock
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def order(self) -> list[Server]:
        """The last good one, then those that did not fail lately, then the others, longest ago first."""
        now = clock.monotonic()
        with self._lock:
            failed, good = dict(self._failed), self._good
        fresh = {server for server, at in failed.items() if now - at < AVOID_S}
        return sorted(
            self.servers,
            key=lambda server: (server in fresh, failed.get(server, 0.0) * (server in fresh), server != good),
        )

    def connect(self, open_one: Callable[[Server], Connection], refusal: type[Exception]) -> tuple[Connection, Server]:
        """A connection and whose it is. Raises the last server's error when none will serve."""
        begun = clock.monotonic()
        problem: Exception | None = None
        for server in self.order():
            if problem is not None and clock.monotonic() - begun > GIVE_UP_S:
                break
            try:
                connection = open_one(server)
            except (refusal, NotReady) as error:
                self.lost(server, error)
                problem = error
                continue
            self._works(server)
            return connection, server
        raise problem or NotReady("no database server is configured")

    def lost(self, server: Server, why: object = "") -> None:
        """It failed: connections to it are given up when they are looked at next."""
        with self._lock:
            known = server in self._failed and clock.monotonic() - self._failed[server] < AVOID_S
            self._failed[server] = clock.monotonic()
            if self._good == server:
                self._good = None
        if not known:
            _log.warning("the database server %s is left: %s", server, why)

    def is_lost(self, server: Server, connected_at: float) -> bool:
        """Whether it failed after `connected_at`."""
        return self._failed.get(server, -1.0) >= connected_at

    def _works(self, server: Server) -> None:
        with self._lock:
            self._failed.pop(server, None)
            changed, self._good = self._good != server, server
        if changed:
            _log.info("the database server %s is used", server)


_known: dict[tuple[tuple[str, int], ...], Servers] = {}
_known_lock = threading.Lock()


def of(hosts: tuple[tuple[str, int], ...]) -> Servers:
    """The process's one state for these servers."""
    with _known_lock:
        if hosts not in _known:
            _known[hosts] = Servers(tuple(Server(host, port) for host, port in hosts))
        return _known[hosts]


def check_ready(connection: Any) -> None:
    """Raises NotReady for a Galera node that serves nobody; a server without Galera is ready when it answers."""
    cursor = connection.cursor()
    try:
        cursor.execute("SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_provider_name')")
        said = {str(name).lower(): str(value) for name, value in cursor.fetchall()}
    finally:
        cursor.close()
    if said.get("wsrep_provider_name") and said.get("wsrep_ready", "").upper() != "ON":
        raise NotReady("the node is not part of its Galera cluster")

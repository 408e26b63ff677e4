"""The route table: which host names exist and which instances stand behind them.

Owns the rule which answer of the control plane may replace it (never an older (epoch, index), never another cluster's)
and its copy on disk. Must not do network I/O or know DNS and Caddy.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import orjson

from agent.plain import from_json
from agent.routing import HostRoute, Routes, Target

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What became of an answer."""

    APPLIED = "applied"
    SAME = "same"
    OLDER = "older"
    FOREIGN = "foreign"


class RouteTable:
    """The newest routes this ingress has seen; survives restarts in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._routes: Routes | None = None
        self._hosts: dict[str, HostRoute] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def position(self) -> tuple[int, int] | None:
        """(epoch, index), or None before the first answer ever."""
        return (self._routes.epoch, self._routes.index) if self._routes else None

    @property
    def cluster_id(self) -> str | None:
        return self._routes.cluster_id if self._routes else None

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def lookup(self, host: str) -> HostRoute | None:
        return self._hosts.get(host)

    def routes(self) -> Iterable[HostRoute]:
        return self._hosts.values()

    def leaving(self) -> Iterable[int]:
        """Instances whose open requests somebody waits for."""
        return self._routes.leaving if self._routes else ()

    def targets(self) -> Iterable[Target]:
        for route in self._hosts.values():
            yield from route.targets

    def __len__(self) -> int:
        return len(self._hosts)

    def load(self) -> bool:
        """Take the table from disk; False when there is none or it cannot be read (the next answer replaces it)."""
        try:
            self._install(from_json(Routes, orjson.loads(self._path.read_bytes())))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log.warning("stored routes cannot be read and are left aside: %s", error)
            return False
        return True

    def judge(self, routes: Routes) -> Verdict:
        """Whether `routes` may replace the table (then the verdict is APPLIED)."""
        if not routes.cluster_id:
            return Verdict.OLDER  # than the first leader: the database is nobody's yet, so nobody's routes are in it
        if self._routes is not None and self._routes.cluster_id:
            if routes.cluster_id != self._routes.cluster_id:
                return Verdict.FOREIGN
            new, have = (routes.epoch, routes.index), (self._routes.epoch, self._routes.index)
            if new < have:
                return Verdict.OLDER
            if new == have:
                return Verdict.SAME
        return Verdict.APPLIED

    async def apply(self, routes: Routes) -> Verdict:
        """Replace the table by `routes` if the rule permits, on disk first: what is served was always stored."""
        verdict = self.judge(routes)
        if verdict is Verdict.APPLIED:
            await asyncio.to_thread(write_json, self._path, routes)
            self._install(routes)
        return verdict

    def _install(self, routes: Routes) -> None:
        self._routes = routes
        self._hosts = {route.host.lower().rstrip("."): route for route in routes.hosts}
        for listener in self._listeners:
            listener()


def write_json(path: Path, data: Any) -> None:
    """Replace `path` as a whole: readers and a crash see the old content or the new one. Takes our dataclasses too."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(orjson.dumps(data))
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)

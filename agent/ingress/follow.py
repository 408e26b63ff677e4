"""Following the route table of the control plane: a waiting read, over whichever member answers.

Owns time-outs, fail-over and back-off. Hands every answer to the table, which decides whether it counts.
"""

from __future__ import annotations

import asyncio
import logging
import random

import httpx
import orjson

from agent.ingress.table import RouteTable, Verdict
from agent.plain import from_json
from agent.routing import Routes

log = logging.getLogger(__name__)

CONNECT_S = 2.0
MARGIN_S = 10.0  # beyond `wait`, before a silent member counts as dead
MAX_PAUSE_S = 3.0


def _read(body: bytes) -> Routes:
    return from_json(Routes, orjson.loads(body))


class Members:
    """The control plane's members, the one that answered last first."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = urls
        self._current = 0

    @property
    def current(self) -> str:
        return self._urls[self._current]

    @property
    def wrapped(self) -> bool:
        """Every member had its turn since the first."""
        return self._current == 0

    def next(self) -> None:
        self._current = (self._current + 1) % len(self._urls)


class RouteFollower:
    """Keeps `table` as new as the control plane lets it."""

    def __init__(self, client: httpx.AsyncClient, members: Members, table: RouteTable, wait_s: float) -> None:
        self._client = client
        self._members = members
        self._table = table
        self._wait_s = wait_s
        self._complained: str | None = None

    async def run(self) -> None:
        pause = 0.1
        while True:
            verdict = await self._once()
            if verdict is Verdict.APPLIED:
                pause = 0.1
                continue
            if verdict is Verdict.SAME:
                # At its time-out a waiting read repeats what we have; the pause is for a member that does not wait.
                pause = 0.1
                await asyncio.sleep(0.2)
                continue
            self._members.next()
            if self._members.wrapped or verdict is not None:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                pause = min(pause * 2, MAX_PAUSE_S)

    async def _once(self) -> Verdict | None:
        """Ask the current member once; None when it gave no usable answer."""
        position = self._table.position
        # After an outage at once: a database that was put back has a lower index, and nothing would seem to change.
        wait = self._wait_s if position is not None and self._complained is None else 0.0
        params: dict[str, str | float] = {"wait": wait, "index": position[1] if position else 0}
        member = self._members.current
        try:
            response = await self._client.get(
                f"{member}/agent/routes",
                params=params,
                timeout=httpx.Timeout(self._wait_s + MARGIN_S, connect=CONNECT_S),
            )
            if response.status_code in (204, 304):
                return Verdict.SAME
            response.raise_for_status()
            # Thousands of hosts take a while to read: beside the loop, which has DNS to answer.
            routes = await asyncio.to_thread(_read, response.content)
            verdict = await self._table.apply(routes)
        except (httpx.HTTPError, ValueError, OSError) as error:
            self._complain(f"{member}: {error or type(error).__name__}")
            return None
        if verdict is Verdict.FOREIGN:
            self._complain(f"{member} belongs to another cluster; its routes are left aside")
        elif verdict is not Verdict.OLDER and self._complained:
            log.info("routes come from %s again", member)
            self._complained = None
        return verdict

    def _complain(self, what: str) -> None:
        """Once per trouble, not once per try: an outage may last for days."""
        if what != self._complained:
            log.warning("no routes from the control plane, serving the last known ones: %s", what)
        self._complained = what

"""The vantage point's talk with the control plane: which checks come in, what they came to goes out.

Owns the loops and their pace. Without an answer checks go on as last heard, and what changed is told later.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

import orjson

from agent import backoff
from agent.checks.engine import Engine
from agent.checks.messages import Checks, Seen, Spans, Verdicts, VerdictsAnswer
from agent.control import ControlPlane, NoAnswer, Rejected
from agent.plain import from_json, to_json
from sandbox.addresses import AddressPolicy

log = logging.getLogger(__name__)

POLL_S = 3.0  # how late a new service is looked at
ALIVE_S = 4.0  # a report without news says that the engine lives
GATHER_S = 0.2  # changes that come together go together
SPANS_S = 5.0
CALL_S = 5.0
MOST = 1000  # of anything in one call
FULL_AFTER = 2000  # reports: what the leader keeps begins anew, so that its file does not grow for ever


class Talk:
    """One node's engine and everything that is said about it."""

    def __init__(self, node: str, incarnation: int, control: ControlPlane) -> None:
        self._node, self._incarnation, self._control = node, incarnation, control
        self._news = asyncio.Event()
        self.engine = Engine(node, self._news.set)
        self._tag = ""
        self._seq = 0
        self._since_full = 0
        self._want_full = True
        self._complaint = ""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.engine.run(), name="check engine")
            group.create_task(self._forever(self.fetch, POLL_S), name="check definitions")
            group.create_task(self._forever(self.report, 0.0), name="check verdicts")
            group.create_task(self._forever(self.ship, SPANS_S), name="check history")

    async def fetch(self) -> None:
        """Read this node's checks, when they have changed."""
        answer = from_json(Checks, await self._control.get(f"/agent/checks?tag={self._tag}", CALL_S))
        if answer.checks is not None:
            self.engine.apply(answer.checks, AddressPolicy.of(answer.allow, answer.deny))
        self._tag = answer.tag

    async def report(self) -> None:
        """Wait for news, or until it is time to say that we live; tell."""
        if not self._want_full:
            try:
                async with asyncio.timeout(ALIVE_S):
                    await self._news.wait()
                    await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass
        self._news.clear()
        if self._want_full or self._since_full >= FULL_AFTER:
            await self._tell_everything()
            return
        changes = self.engine.changes(MOST)
        await self._tell(changes, full=False)
        if len(changes) == MOST:
            self._news.set()

    async def ship(self) -> None:
        while spans := self.engine.history.due(MOST):
            body = orjson.dumps(to_json(Spans(self._node, spans)))
            await self._control.post("/agent/spans", body, CALL_S)
            self.engine.history.shipped(spans)

    async def _tell_everything(self) -> None:
        seen = self.engine.everything()
        self._want_full = False
        await self._tell(seen[:MOST], full=True)
        self._since_full = 0
        for start in range(MOST, len(seen), MOST):
            await self._tell(seen[start : start + MOST], full=False)

    async def _tell(self, seen: list[Seen], *, full: bool) -> None:
        self._seq += 1
        self._since_full += 1
        report = Verdicts(self._node, self._incarnation, self._seq, full, seen)
        try:
            answer = from_json(
                VerdictsAnswer, await self._control.post("/agent/verdicts", orjson.dumps(to_json(report)), CALL_S)
            )
        except BaseException:
            self._want_full = True  # whether it arrived is not known
            raise
        self.engine.told(seen)
        self._want_full = self._want_full or answer.want_full

    async def _forever(self, step: Callable[[], Awaitable[None]], pause_s: float) -> None:
        failures = 0
        while True:
            try:
                await step()
                failures = 0
            except (NoAnswer, Rejected, ValueError, OSError) as error:
                failures += 1
                if str(error) != self._complaint:
                    log.warning("checks: %s", error)
                self._complaint = str(error)
                await asyncio.sleep(backoff.delay(failures, random.random(), first=0.5, longest=5.0))  # noqa: S311
                continue
            await asyncio.sleep(pause_s)

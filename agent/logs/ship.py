"""Carries the output of every instance to the control plane.

Owns the loop: look, gather one post of batches from all instances in turn, send, advance by what was acknowledged.
One post is on its way at a time; when there is a backlog the next follows at once. A post holds no more than the
control plane stored in `POST_AIM_S` of late, shared out among those that wait: a quiet instance's line waits for the
posts of a loud one, so they must be short where storing is slow. Nobody waits for the loop: instances write to files,
and what cannot be sent stays there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from agent import backoff, clock
from agent.control import ControlPlane, NoAnswer, Rejected
from agent.logs import bucket
from agent.logs.bucket import Bucket
from agent.logs.tail import Tail

log = logging.getLogger(__name__)

LOOK_S = 0.25
POST_BYTES = 1024 * 1024
LINE_COST = 40  # bytes around a line's text in a post
BATCH_LINES = 5_000
POST_S = 10.0
POST_AIM_S = 0.25
_FEWEST, _MOST = 1_000, 25_000  # lines of a post; those of a small one say nothing about speed


@dataclass
class Source:
    """One instance's output. `on_done` is called when there is nothing left to acknowledge."""

    instance_id: int
    app_id: int
    tail: Tail
    allowance: Bucket
    on_done: Callable[[], None]
    unwanted: bool = False


class Shipper:
    def __init__(self, node: str, control: ControlPlane, lines_per_s: float, burst: int) -> None:
        self._node = node
        self._control = control
        self._rate, self._burst = lines_per_s, burst
        self._sources: dict[int, Source] = {}
        self._turn = 0
        self._lines = _MOST  # of a post

    def add(self, instance_id: int, app_id: int, tail: Tail, on_done: Callable[[], None]) -> None:
        allowance = bucket.full(self._rate, self._burst, clock.monotonic())
        self._sources[instance_id] = Source(instance_id, app_id, tail, allowance, on_done)

    def drop(self, instance_id: int) -> None:
        self._sources.pop(instance_id, None)

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                more = await self.round()
                failures = 0
            except (NoAnswer, Rejected) as error:
                failures += 1
                if failures in (1, 10) or failures % 100 == 0:
                    log.warning("logs cannot be shipped, they wait in their files: %s", error)
                more = False
                self._trim()
                await asyncio.sleep(backoff.delay(failures, random.random(), first=0.5, longest=5.0))  # noqa: S311
            if not more:
                await asyncio.sleep(LOOK_S)

    async def round(self) -> bool:
        """One post at most. Whether there is more to send at once."""
        self._trim()
        share = self._share()
        gathered = self._gather(share)
        if not gathered:
            return False
        batches = [
            {"instance_id": source.instance_id, "app_id": source.app_id, "first_seq": source.tail.seq, "lines": lines}
            for source, lines in gathered
        ]
        body = orjson.dumps({"node": self._node, "batches": batches})
        begun = clock.monotonic()
        answer = await self._control.post("/agent/logs", body, POST_S)
        self._lines = paced(self._lines, sum(len(lines) for _, lines in gathered), clock.monotonic() - begun)
        return self._settle(gathered, answer, share)

    def _gather(self, share: int) -> list[tuple[Source, list[list[Any]]]]:
        """Batches from the sources in turn, so that a loud one never silences the others."""
        now, at_us = clock.monotonic(), clock.wall_us()
        order = list(self._sources.values())
        self._turn = (self._turn + 1) % max(1, len(order))
        gathered: list[tuple[Source, list[list[Any]]]] = []
        total = 0
        for source in order[self._turn :] + order[: self._turn]:
            source.allowance = source.allowance.filled(now)
            if source.unwanted:
                source.tail.discard()
                continue
            if source.allowance.tokens <= 0:
                continue
            lines = _read(source, at_us, share)
            if lines:
                gathered.append((source, lines))
                total += sum(len(line[2]) + LINE_COST for line in lines)
                if total >= POST_BYTES:
                    break
        return gathered

    def _share(self) -> int:
        """Lines that each of those that wait may send in one post."""
        if self._lines >= BATCH_LINES * len(self._sources):
            return BATCH_LINES
        waiting = sum(not source.unwanted and source.tail.waiting() for source in self._sources.values())
        return min(BATCH_LINES, max(_FEWEST // 4, self._lines // max(1, waiting)))

    def _settle(self, gathered: list[tuple[Source, list[list[Any]]]], answer: Any, share: int) -> bool:
        acked = answer.get("acked", {}) if isinstance(answer, dict) else {}
        unknown = set(answer.get("unknown", [])) if isinstance(answer, dict) else set()
        more = False
        for source, lines in gathered:
            if source.instance_id in unknown:
                source.unwanted = True
                source.tail.discard()
                source.on_done()
                continue
            number = acked.get(str(source.instance_id))
            if not isinstance(number, int):
                continue
            before = source.tail.seq
            source.tail.acknowledge(len(lines), number)
            if source.tail.seq > before:
                source.allowance = source.allowance.taken(len(lines))
                held_back = source.allowance.tokens < self._rate * LOOK_S
                more = more or len(lines) >= BATCH_LINES // 2 or (len(lines) >= share // 2 and not held_back)
            if not source.tail.waiting():
                source.on_done()
        return more

    def _trim(self) -> None:
        at_us = clock.wall_us()
        for source in self._sources.values():
            try:
                source.tail.trim(at_us)
            except OSError as error:
                log.warning("instance %s: its log cannot be trimmed: %s", source.instance_id, error)


def paced(lines: int, sent: int, took_s: float) -> int:
    """Lines that the next post may hold after one of `sent` lines took so long: fewer at once, more slowly. Pure."""
    if sent < _FEWEST // 4:
        return lines
    fitting = int(sent * POST_AIM_S / max(took_s, 0.001))
    return max(_FEWEST, min(fitting, lines * 2, _MOST))


def _read(source: Source, at_us: int, share: int) -> list[list[Any]]:
    """The next batch, no more than its allowance: the posts of one that is held back stay small, for the sake of those
    whose lines travel with them. A file that cannot be read or a cursor that cannot be written stops this log only."""
    try:
        most = min(share, int(source.allowance.tokens) + 1)
        return source.tail.batch(at_us, most) if source.tail.waiting() else []
    except OSError as error:
        log.warning("instance %s: its log waits: %s", source.instance_id, error)
        return []

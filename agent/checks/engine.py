"""Runs every check of this node at its interval, and keeps what came of it.

Owns pace and bounds: one task decides what is due, each check is a task of its own, and no more are under way than
the process has descriptors for. A check that is late is run once, not made up for; how late it was is measured.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import logging
import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent import clock
from agent.checks import streaks
from agent.checks.asking import Answer, Asker
from agent.checks.history import History
from agent.checks.messages import Check, Seen
from agent.checks.streaks import Streak
from sandbox.addresses import AddressPolicy

log = logging.getLogger(__name__)

MOST_AT_ONCE = 2000
FIRST_WITHIN_S = 10.0  # the first check of a service comes so soon, however long its interval
_LAGS_KEPT = 20_000
_IDLE_S = 1.0
_WORDS_AGAIN_US = 30_000_000  # other words for the same verdict are told so seldom
_NONE = Streak()


@dataclass(slots=True)
class _Watched:
    check: Check
    streak: Streak = _NONE
    told: Seen | None = None  # as the leader last heard of it
    busy: bool = False
    dropped: bool = False
    detail: str = ""
    latency_ms: float | None = None
    at_us: int = 0


class Engine:
    """`changed` is called when there is something to tell."""

    def __init__(self, node: str, changed: Callable[[], None] = lambda: None, asker: Asker | None = None) -> None:
        self._node, self._changed = node, changed
        self.asker = asker or Asker()
        self.history = History()
        self.lags: deque[float] = deque(maxlen=_LAGS_KEPT)  # seconds; of the newest checks
        self.done = 0
        self._watched: dict[int, _Watched] = {}
        self._queue: list[tuple[float, int, _Watched]] = []
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(_most_at_once())
        self._gone: dict[int, Seen] = {}

    def apply(self, checks: list[Check], policy: AddressPolicy) -> None:
        """From now on these, and no others. A check whose definition is the same goes on as it is."""
        self.asker.policy = policy
        wanted = {check.id: check for check in checks}
        for id in [id for id in self._watched if id not in wanted]:
            self._drop(id)
            self._gone[id] = Seen(id, 0, "unknown", clock.wall_us())
        for check in checks:
            known = self._watched.get(check.id)
            if known is not None and known.check == check:
                continue
            if known is not None:
                self._drop(check.id)
            self._gone.pop(check.id, None)
            fresh = self._watched[check.id] = _Watched(check)
            self._plan(fresh, clock.monotonic() + self._offset(check))
        self._wake.set()
        if self._gone:
            self._changed()

    async def run(self) -> None:
        try:
            while True:
                pause = self._start_due()
                self._wake.clear()
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._tasks:
                task.cancel()
            self.asker.close()

    def changes(self, most: int) -> list[Seen]:
        """What the leader has not heard yet."""
        found = list(self._gone.values())[:most]
        for one in self._watched.values():
            if len(found) >= most:
                break
            if _news(one):
                found.append(_seen(one))
        return found

    def everything(self) -> list[Seen]:
        return [_seen(one) for one in self._watched.values() if one.streak.verdict != "unknown"]

    def told(self, seen: list[Seen]) -> None:
        """The leader has these."""
        for one in seen:
            self._gone.pop(one.id, None)
            known = self._watched.get(one.id)
            if known is not None and known.check.definition == one.definition:
                known.told = one

    def _drop(self, id: int) -> None:
        self._watched.pop(id).dropped = True
        self.history.forget(id)

    def _plan(self, one: _Watched, due: float) -> None:
        self._number += 1
        heapq.heappush(self._queue, (due, self._number, one))

    def _offset(self, check: Check) -> float:
        """Spreads checks of one interval over it, on each node in another order."""
        digest = hashlib.blake2b(f"{self._node}:{check.id}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") / 2**32 * min(check.interval_s, FIRST_WITHIN_S)

    def _start_due(self) -> float:
        """Begin what is due; seconds until the next."""
        while self._queue:
            due, _, one = self._queue[0]
            now = clock.monotonic()
            if due > now:
                return due - now
            heapq.heappop(self._queue)
            if one.dropped:
                continue
            self._plan(one, max(due + one.check.interval_s, now))
            if not one.busy:
                one.busy = True
                task = asyncio.create_task(self._check(one, due))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return _IDLE_S

    async def _check(self, one: _Watched, due: float) -> None:
        check = one.check
        try:
            async with self._room:
                self.lags.append(clock.monotonic() - due)
                begun = time.perf_counter()
                answer = await self.asker.ask(check)
                latency_ms = (time.perf_counter() - begun) * 1000
        except Exception as error:  # a mistake of ours is the check's failure, not the engine's end
            log.exception("check of service %d", check.id)
            answer, latency_ms = Answer("failing", f"the check itself failed: {type(error).__name__}"), 0.0
        finally:
            one.busy = False
        self.done += 1
        if not one.dropped:
            self._take(one, answer, latency_ms)

    def _take(self, one: _Watched, answer: Answer, latency_ms: float) -> None:
        check = one.check
        one.at_us, one.latency_ms = clock.wall_us(), round(latency_ms, 3)
        one.streak = streaks.after(one.streak, answer.outcome, check.healthy_threshold, check.unhealthy_threshold)
        if answer.outcome == one.streak.verdict:  # else the words would contradict the verdict, which still stands
            one.detail = answer.detail
        self.history.add(check.id, one.at_us, answer.outcome, latency_ms, answer.detail)
        if _news(one):
            self._changed()


def _news(one: _Watched) -> bool:
    if one.streak.verdict == "unknown":
        return False
    if one.told is None or one.told.verdict != one.streak.verdict:
        return True
    other_words = one.streak.verdict != "passing" and one.detail != one.told.detail
    return other_words and one.at_us - one.told.at_us > _WORDS_AGAIN_US


def _seen(one: _Watched) -> Seen:
    return Seen(one.check.id, one.check.definition, one.streak.verdict, one.at_us, one.detail, one.latency_ms)


def _most_at_once() -> int:
    """Half of the descriptors that this process may have: the other half is for what it runs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(50, min(MOST_AT_ONCE, soft // 2 if soft != resource.RLIM_INFINITY else MOST_AT_ONCE))

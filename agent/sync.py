"""The agent's talk with the control plane: what to do comes in, what was seen goes out.

Owns the two loops and what is not yet acknowledged. Neither loop ever decides anything about an instance, and nothing
that runs waits for them: without an answer everything goes on as last heard.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from agent import backoff, clock
from agent.control import ControlPlane, NoAnswer, Rejected
from agent.plain import from_json
from agent.protocol import (
    Assignment,
    Assignments,
    NodeFacts,
    Observed,
    Report,
    ReportAnswer,
    SessionSeen,
    VolumeJobSeen,
    VolumeSeen,
)
from agent.supervisor import ForeignList, Supervisor

log = logging.getLogger(__name__)

REPORT_S = 5.0
GATHER_S = 0.05  # changes that come together go together
MANY = 12  # where more than so many start at once, nobody waits for a single one: fewer, fuller reports
GATHER_MANY_S = 0.5
LIST_MANY_S = 0.5  # and the list that follows each of these reports tells little news
REPORT_MOST = 200
RETRY_LONGEST_S = 5.0


class Reporter:
    """Keeps the newest observation of each instance until the control plane has it."""

    def __init__(
        self,
        node: str,
        incarnation: int,
        control: ControlPlane,
        heartbeat_s: float,
        acknowledged: Callable[[float], None] = lambda _sent_at: None,
    ) -> None:
        self._node = node
        self._acknowledged = acknowledged  # called with the moment at which a report was sent that the leader took
        self._incarnation = incarnation
        self._control = control
        self._heartbeat_s = heartbeat_s
        self._changes: dict[int, Observed] = {}
        self._starting: set[int] = set()
        self._gone: set[int] = set()
        self._volumes: dict[str, VolumeSeen] = {}
        self._jobs: dict[tuple[str, int], VolumeJobSeen] = {}
        self._sessions: dict[int, SessionSeen] = {}
        self._news = asyncio.Event()
        self._facts: NodeFacts | None = None
        self._facts_due = True

    def changed(self, observed: Observed) -> None:
        self._changes[observed.id] = observed
        if observed.status in ("placed", "starting"):
            self._starting.add(observed.id)
        else:
            self._starting.discard(observed.id)
        self._news.set()

    def gone(self, instance_id: int) -> None:
        """Its directory is removed. What was last seen of it is still told, in the same report or an earlier one."""
        self._starting.discard(instance_id)
        self._gone.add(instance_id)
        self._news.set()

    def volume(self, seen: VolumeSeen) -> None:
        self._volumes[seen.key] = seen
        self._news.set()

    def volume_job(self, seen: VolumeJobSeen) -> None:
        self._jobs[seen.kind, seen.id] = seen
        self._news.set()

    def session(self, seen: SessionSeen) -> None:
        self._sessions[seen.id] = seen
        self._news.set()

    def facts(self, facts: NodeFacts) -> None:
        self._facts, self._facts_due = facts, True
        self._news.set()

    async def run(self, supervisor: Supervisor) -> None:
        failures = 0
        while True:
            try:
                answer = await self.send()
                supervisor.forget(answer.unknown)
                failures = 0
            except (NoAnswer, Rejected, ValueError, OSError) as error:
                failures += 1
                _tell(failures, "report", error)
                await asyncio.sleep(_pause(failures))
                continue
            if not self._news.is_set():
                await self._news_or_heartbeat()
            elif self.many_start:
                await asyncio.sleep(GATHER_MANY_S)

    async def send(self) -> ReportAnswer:
        """One report. What it told is forgotten only when the answer says so and nothing newer came meanwhile."""
        self._news.clear()
        told = dict(list(self._changes.items())[:REPORT_MOST])
        gone = sorted(self._gone)[:REPORT_MOST]
        facts = self._facts if self._facts_due else None
        volumes, jobs, sessions = dict(self._volumes), dict(self._jobs), dict(self._sessions)
        report = Report(
            self._node, self._incarnation, list(told.values()), facts, gone,
            volumes=list(volumes.values()), volume_jobs=list(jobs.values()), sessions=list(sessions.values()),
        )  # fmt: skip
        body = orjson.dumps(report)
        sent_at = clock.monotonic()
        answer = from_json(ReportAnswer, await self._control.post("/agent/report", body, REPORT_S))
        self._acknowledged(sent_at)
        for instance_id in {*answer.known, *answer.unknown}:
            if instance_id in told and self._changes.get(instance_id) == told[instance_id]:
                del self._changes[instance_id]
        self._gone -= set(gone)
        self._volumes = {key: seen for key, seen in self._volumes.items() if volumes.get(key) != seen}
        self._jobs = {key: seen for key, seen in self._jobs.items() if jobs.get(key) != seen}
        self._sessions = {key: seen for key, seen in self._sessions.items() if sessions.get(key) != seen}
        self._facts_due = answer.want_facts or (self._facts_due and facts is None)
        if len(self._changes) > len(told) - len(answer.known) or (answer.want_facts and facts is None):
            self._news.set()
        return answer

    @property
    def many_start(self) -> bool:
        return len(self._starting) > MANY

    async def _news_or_heartbeat(self) -> None:
        try:
            async with asyncio.timeout(self._heartbeat_s):
                await self._news.wait()
                await asyncio.sleep(GATHER_MANY_S if self.many_start else GATHER_S)
        except TimeoutError:
            pass


class Assigner:
    """Reads the node's list, waits for the next one, hands each to the supervisor."""

    def __init__(self, control: ControlPlane, wait_s: float, many_start: Callable[[], bool] = lambda: False) -> None:
        self._control = control
        self._wait_s = wait_s
        self._many_start = many_start

    async def run(self, supervisor: Supervisor) -> None:
        failures, wait = 0, 0.0
        while True:
            try:
                await self.read(supervisor, wait)
                failures, wait = 0, self._wait_s
                if self._many_start():
                    await asyncio.sleep(LIST_MANY_S)
            except (NoAnswer, Rejected, ForeignList, ValueError, OSError) as error:
                failures += 1
                _tell(failures, "assignments", error)
                await asyncio.sleep(_pause(failures))

    async def read(self, supervisor: Supervisor, wait: float) -> None:
        path = f"/agent/assignments?index={supervisor.applied.index}&wait={wait:g}"
        answer = await self._control.get(path, wait + 5.0)
        wanted, unreadable = readable(answer)
        for instance_id, problem in unreadable.items():
            _tell(1, f"assignment of instance {instance_id}", problem)
        supervisor.apply(wanted, frozenset(unreadable))


def readable(answer: Any) -> tuple[Assignments, dict[int, ValueError]]:
    """The list without the entries that this agent cannot read, and those: one of them must not stop the others."""
    if not isinstance(answer, dict) or not isinstance(answer.get("instances"), list):
        raise ValueError("an object with a list of instances is wanted")
    found, unreadable = [], {}
    for entry in answer["instances"]:
        try:
            found.append(from_json(Assignment, entry))
        except ValueError as error:
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
                raise
            unreadable[entry["id"]] = error
    return replace(from_json(Assignments, {**answer, "instances": []}), instances=found), unreadable


def _pause(failures: int) -> float:
    return backoff.delay(failures, random.random(), first=0.2, longest=RETRY_LONGEST_S)  # noqa: S311


_told: dict[str, str] = {}


def _tell(failures: int, what: str, error: Exception) -> None:
    """Say it when it is new, and now and then while it lasts."""
    text = str(error)
    if failures == 1 or failures % 100 == 0 or _told.get(what) != text:
        log.warning("%s (try %d): %s", what, failures, text)
    _told[what] = text

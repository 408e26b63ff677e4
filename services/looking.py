"""One look at every service: who was to say something, what was said, what follows. Pure but for its own memory.

Owns the readings of heartbeats and of the platform's own parts, which the leader takes itself; those of the nodes come
from `board`. `decision` says what they mean together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.checks import streaks
from agent.checks.messages import Outcome
from agent.checks.streaks import Streak
from services import vantage
from services.decision import Assessment, Memory, Reading, assess
from services.watched import Beat, Watched

LEADER = "leader"


@dataclass(frozen=True, slots=True)
class PartSeen:
    """One of the platform's own parts as the leader sees it now; `outcome` None: nobody can say."""

    outcome: Outcome | None
    detail: str = ""


Readings = Callable[[int, int, Sequence[str]], list[Reading]]


@dataclass(slots=True)
class Looks:
    """What successive looks need of each other: the streaks of parts."""

    _streaks: dict[str, Streak] = field(default_factory=dict)
    _words: dict[str, str] = field(default_factory=dict)  # of the verdict, not of an answer that has not turned it yet

    def take(self, parts: Mapping[str, PartSeen], services: Sequence[Watched]) -> None:
        """One more observation of the parts."""
        for service in services:
            if service.type == "part" and (seen := parts.get(service.spec["part"])) is not None:
                before = self._streaks.get(service.name, Streak())
                if seen.outcome is None:
                    self._streaks.pop(service.name, None)
                    continue
                after = self._streaks[service.name] = streaks.after(
                    before, seen.outcome, service.healthy_threshold, service.unhealthy_threshold
                )
                if after.verdict == seen.outcome:
                    self._words[service.name] = seen.detail

    def verdict(self, service: Watched) -> Streak:
        return self._streaks.get(service.name, Streak())

    def words(self, service: Watched) -> str:
        return self._words.get(service.name, "")


def look(
    service: Watched,
    memory: Memory,
    now: float,
    *,
    nodes: Sequence[str],
    readings: Readings,
    looks: Looks,
    beats: Mapping[int, Beat] | None,
    able_since: float,
) -> Assessment:
    """What is to be thought of a service now. `beats` is None while nobody can read them."""
    starting = now - service.defined_at < service.start_period_s and memory.seen is None
    if service.type == "heartbeat":
        told = _of_beats(service, memory, now, beats, able_since)
        expected = 1
    elif service.type == "part":
        verdict = looks.verdict(service).verdict
        told = [Reading(LEADER, verdict, looks.words(service))] if verdict != "unknown" else []
        expected = 1
    else:
        named = service.spec.get("node")
        chosen = (named,) if named else vantage.chosen(service.id, nodes, service.vantage_points)
        told, expected = readings(service.id, service.definition, chosen), len(chosen)
    return assess(expected, told, maintenance=service.maintenance, starting=starting)


def _of_beats(
    service: Watched, memory: Memory, now: float, beats: Mapping[int, Beat] | None, able_since: float
) -> list[Reading]:
    """A missing beat counts only for the time in which it could have been heard."""
    if beats is None:
        return []
    beat = beats.get(service.id)
    patience = service.interval_s * service.unhealthy_threshold + service.timeout_s
    last = beat.at if beat is not None else service.defined_at + service.start_period_s
    age = now - last
    if beat is not None and age <= patience:
        return [Reading(LEADER, "passing" if beat.ok else "failing", beat.detail or _ago(age))]
    if beat is None and age <= patience:
        return []
    if now - able_since <= patience:  # nobody could hear it for a while: what was known stands
        if memory.seen is None:
            return []
        failing = memory.seen == "unhealthy"
        return [Reading(LEADER, "failing" if failing else "passing", "none has come yet" if failing else _ago(age))]
    silence = f"no heartbeat for more than {patience:g} s"
    return [Reading(LEADER, "failing", silence if beat is not None else "no heartbeat has come yet")]


def _ago(age: float) -> str:
    return f"the last heartbeat came {max(0.0, age):.0f} s ago" if age >= 60 else "heartbeats come"

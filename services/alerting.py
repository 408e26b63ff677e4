"""Which alerts there are to be: opened once, grouped under the dependency that failed, resolved by themselves. Pure.

Owns the rule that a dead database is one alert, not forty: a service whose dependency fails speaks through the
dependency's alert. Who is told, and when, is `notices`' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from services.decision import State

Severity = Literal["info", "warning", "critical"]
Trouble = Literal["failing", "warning"]
_SLACK_S = 3.0  # until a verdict is told and looked at
_LONGEST_S = 60.0  # no alert waits longer, however seldom its dependencies are looked at
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Watched:
    """A service as alerts see it. `since`: when its trouble was seen, seconds since the epoch; what happens to it is
    seen after `soonest_s` at the earliest and `latest_s` at the latest: intervals, thresholds and time-outs differ."""

    id: int
    name: str
    state: State
    severity: Severity = "warning"
    reason: str = ""
    detail: str = ""
    flapping: bool = False
    since: float = 0.0
    depends_on: tuple[str, ...] = ()
    soonest_s: float = 0.0
    latest_s: float = 0.0

    @property
    def trouble(self) -> Trouble | None:
        """What calls for an alert: a majority that fails, flapping, or a majority that warns (a certificate)."""
        if self.state == "unhealthy" or self.flapping:
            return "failing"
        return "warning" if self.state == "degraded" and self.reason == "warning" else None


@dataclass(frozen=True, slots=True)
class Standing:
    """An alert that is not resolved."""

    id: int
    service_id: int | None
    severity: Severity
    detail: str
    affected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Open:
    service_id: int
    severity: Severity
    detail: str
    affected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Update:
    alert_id: int
    severity: Severity
    detail: str
    affected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resolve:
    """`why`: recovered, maintenance, deleted, grouped (`under` says below which service)."""

    alert_id: int
    why: Literal["recovered", "maintenance", "deleted", "grouped"]
    under: int | None = None


Action = Open | Update | Resolve


def plan(services: Iterable[Watched], standing: Iterable[Standing], now: float, group_s: float) -> list[Action]:
    """What is to be done so that each trouble has exactly one alert, its root's."""
    by_name = {service.name: service for service in services}
    roots = {name: root(name, by_name) for name, service in by_name.items() if service.trouble}
    below: dict[str, list[str]] = {}
    for name, top in roots.items():
        if top != name:
            below.setdefault(top, []).append(name)
    by_service = {alert.service_id: alert for alert in standing}
    actions: list[Action] = []
    for alert in standing:
        if alert.service_id is None:
            actions.append(Resolve(alert.id, "deleted"))
    known = {service.id for service in by_name.values()}
    actions += [Resolve(a.id, "deleted") for a in standing if a.service_id is not None and a.service_id not in known]
    for name in sorted(by_name):
        service, known_alert = by_name[name], by_service.get(by_name[name].id)
        affected = tuple(sorted(below.get(name, ())))
        actions += _one(service, known_alert, roots.get(name), affected, by_name, now, group_s)
    return actions


def _one(
    service: Watched,
    alert: Standing | None,
    top: str | None,
    affected: tuple[str, ...],
    by_name: Mapping[str, Watched],
    now: float,
    group_s: float,
) -> list[Action]:
    if top is None:
        if alert is None or service.state in ("unknown", "degraded"):
            return []  # not well yet: on its way from a warning to a failure, or back, it is degraded by a minority
        return [Resolve(alert.id, "maintenance" if service.state == "maintenance" else "recovered")]
    if top != service.name:
        return [] if alert is None else [Resolve(alert.id, "grouped", by_name[top].id)]
    severity: Severity = service.severity if service.trouble == "failing" else _lower(service.severity)
    if alert is None:
        waits = _patience_s(service, by_name, group_s)
        return [Open(service.id, severity, service.detail, affected)] if now - service.since >= waits else []
    if (alert.severity, alert.detail, alert.affected) == (severity, service.detail, affected):
        return []
    return [Update(alert.id, severity, service.detail, affected)]


def _patience_s(service: Watched, by_name: Mapping[str, Watched], group_s: float) -> float:
    """So long a dependency that died at the same moment may need to be seen failing, and at least `group_s`."""
    if not service.depends_on:
        return 0.0
    latest = max((by_name[name].latest_s for name in service.depends_on if name in by_name), default=0.0)
    return max(group_s, min(latest - service.soonest_s + _SLACK_S, _LONGEST_S))


def root(name: str, by_name: Mapping[str, Watched]) -> str:
    """The failing service that speaks for `name`: the first, by name, of those below it that fail because of nothing
    else. Itself when none of its dependencies fails. Dependencies in a circle are spoken for by the first of them."""
    reached, todo, ends = {name}, [name], set[str]()
    while todo:
        here = todo.pop()
        failing = [d for d in by_name[here].depends_on if d in by_name and by_name[d].trouble == "failing"]
        if not failing:
            ends.add(here)
        todo += [one for one in failing if one not in reached]
        reached.update(failing)
    return min(ends or reached)


def _lower(severity: Severity) -> Severity:
    """A warning is at most a warning."""
    return min(severity, "warning", key=SEVERITIES.index)

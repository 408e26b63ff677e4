"""What is the matter with an app, in one plain sentence. Pure.

Owns the words and which of several troubles is told first. What was seen comes in as data; nothing is looked up here.
"""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Tone = Literal["ok", "busy", "warn", "bad", "off"]

LATELY_S = 600
_HISTORY_KEPT = 50
_TOLD = 3  # slots by name; the others are counted
_NAMED = 5  # more slots than this are counted


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """One slot's instance. `restarts` are those within `LATELY_S`; `ended` says how it ended last.

    `type` is its process type, empty for web.
    """

    slot: int
    status: str
    health: str
    restarts: int = 0
    ended: str = ""
    detail: str = ""
    reason: str = ""
    type: str = ""

    @property
    def place(self) -> tuple[str, int]:
        return self.type, self.slot

    @property
    def healthy(self) -> bool:
        return self.status == "running" and self.health == "healthy"


@dataclass(frozen=True, slots=True)
class DeploymentSeen:
    """The newest deployment. `phase` is None once it is over; `on_new` are healthy instances of what it brings."""

    kind: str
    status: str
    version: str | None
    phase: str | None = None
    on_new: int = 0
    error: str = ""
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class AppSeen:
    """`wanted` is the desired count of all process types, whatever the desired state."""

    desired_state: str
    wanted: int
    released: bool
    instances: Sequence[InstanceSeen] = ()
    deployment: DeploymentSeen | None = None
    maintenance: bool = False
    frozen: str = ""
    building: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """`text` leads; `also` are further sentences in the order of their weight."""

    tone: Tone
    text: str
    also: tuple[str, ...] = ()


def sentence(app: AppSeen) -> Sentence:
    """The state of an app as an operator would tell it to another one."""
    tone, text = _state(app)
    also = [told for told in (_deployment(app), _building(app)) if told]
    if app.maintenance and app.desired_state != "deleted":
        also.append("Visitors get the maintenance page.")
    if app.frozen:
        also.append(f"Deployments are frozen: {app.frozen}.")
    return Sentence(tone, text, tuple(also))


def _state(app: AppSeen) -> tuple[Tone, str]:
    left = sum(1 for one in app.instances if one.status not in ("stopped", "failed", "lost"))
    if app.desired_state == "deleted":
        return "off", f"Being deleted; {_count(left, 'instance')} still to stop." if left else "Being deleted."
    if app.desired_state == "stopped":
        return (
            "off",
            f"Stopped on request; {_count(left, 'instance')} still stopping." if left else "Stopped on request.",
        )
    if not app.released:
        return "off", "Nothing is deployed yet."
    if app.wanted == 0:
        return "off", "Scaled to no instances."
    healthy = {one.place for one in app.instances if one.healthy}
    trouble = _worst_by_slot([one for one in app.instances if one.place not in healthy])
    shaky = [one for one in app.instances if one.healthy and one.restarts]
    text = f"{min(len(healthy), app.wanted)} of {app.wanted} healthy"
    groups = _alike(trouble)
    told = [_trouble(group) for group in (*groups[:_TOLD], *_alike(shaky)[: max(0, _TOLD - len(groups))])]
    if more := sum(len(group) for group in groups[_TOLD:]):
        told.append(f"{_count(more, 'more slot')} {'is' if more == 1 else 'are'} not healthy")
    return _tone(app, len(healthy), bool(shaky)), "; ".join([text, *told]) + "."


def _tone(app: AppSeen, healthy: int, shaky: bool) -> Tone:
    if healthy >= app.wanted:
        return "warn" if shaky else "ok"
    under_way = app.deployment is not None and app.deployment.phase not in (None, "warm", "reverting", "paused")
    troubled = any(one.restarts or one.status in ("crashed", "failed", "lost") for one in app.instances)
    if under_way and not troubled:
        return "busy"
    return "bad" if healthy == 0 else "warn"


def _worst_by_slot(rows: Sequence[InstanceSeen]) -> list[InstanceSeen]:
    """One row a slot, the newest, the most restarted first."""
    by_slot: dict[tuple[str, int], InstanceSeen] = {}
    for one in rows:
        if one.place not in by_slot or by_slot[one.place].status in ("stopped", "failed", "lost"):
            by_slot[one.place] = one
    return sorted(by_slot.values(), key=lambda one: (-one.restarts, one.place))


def _alike(rows: Sequence[InstanceSeen]) -> list[list[InstanceSeen]]:
    """Slots of which the same is to be said, in the order of their first."""
    groups: dict[tuple[str, str], list[InstanceSeen]] = {}
    for one in rows:
        groups.setdefault((one.type, _what(one)), []).append(one)
    return list(groups.values())


_PLURALS = {"waits ": "wait ", "was lost with its": "were lost with their", "fails its": "fail their", "is ": "are "}


def _trouble(group: Sequence[InstanceSeen]) -> str:
    one, what = group[0], _what(group[0])
    kind = f"{one.type} " if one.type else ""
    if len(group) == 1:
        return f"{kind}slot {one.slot} {what}"
    for singular, plural in _PLURALS.items():
        what = plural + what.removeprefix(singular) if what.startswith(singular) else what
    if len(group) > _NAMED:
        return f"{len(group)} {kind}slots {what}"
    slots = [str(each.slot) for each in sorted(group, key=lambda each: each.slot)]
    return f"{kind}slots {', '.join(slots[:-1])} and {slots[-1]} {what}"


def _what(one: InstanceSeen) -> str:
    how = f": {one.ended}" if one.ended else ""
    if one.restarts:
        times = "once" if one.restarts == 1 else f"{one.restarts} times"
        return f"restarted {times} in {LATELY_S // 60} minutes{how}"
    if one.status == "pending":
        return f"waits for a node{_because(one.reason)}"
    if one.status == "lost":
        return "was lost with its node"
    if one.status in ("crashed", "failed"):
        return f"{one.status}{how or _because(one.detail)}"
    if one.status == "running" and one.health == "unhealthy":
        return f"fails its health check{_because(one.detail)}"
    if one.status == "stopping":
        return "is stopping"
    return "is starting"


def _because(text: str) -> str:
    text = text.strip().rstrip(".")
    return f" ({text})" if text else ""


_PHASES = {
    "pending": "is about to begin",
    "preparing": "waits for its release command",
    "paused": "is paused",
    "starting": "starts beside what runs",
    "baking": "is being watched before it takes over",
    "awaiting_promotion": "waits to be promoted",
    "switching": "is ready; requests switch to it",
    "switched": "has the requests; the old set leaves",
    "warm": "has the requests; the old set is kept for going back",
}
_KINDS = {"scale": "Scaling", "restart": "The restart", "start": "Starting", "stop": "Stopping"}


def _deployment(app: AppSeen) -> str:
    found = app.deployment
    if found is None or app.desired_state == "deleted":
        return ""
    what = _KINDS.get(found.kind) or (f"Version {found.version}" if found.version else "The deployment")
    if found.phase == "reverting":
        return f"{what} failed and is being reverted{_because(found.error)}."
    if found.phase == "rolling":
        return f"{what} is rolling out: {found.on_new} of {app.wanted} on it are healthy."
    if found.phase in _PHASES:
        return f"{what} {_PHASES[found.phase]}."
    if found.status == "failed":
        return f"{what} failed{_because(found.error)}."
    if found.status == "reverted":
        back = f" to {found.previous}" if found.previous else ""
        return f"{what} failed and went back{back}{_because(found.error)}."
    return ""


def _building(app: AppSeen) -> str:
    return f"Version {app.building} is being built." if app.building else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ended(last_exit: Mapping[str, Any] | None) -> str:
    """How a process ended: `exit 137, out of memory`; empty when it has not."""
    if not last_exit:
        return ""
    code, number = last_exit.get("code"), last_exit.get("signal")
    if number is not None:
        try:
            name = signal.Signals(int(number)).name
        except ValueError:
            name = f"signal {number}"
        text = f"exit {128 + int(number)}" + ("" if last_exit.get("oom") else f" ({name})")
    elif code is not None:
        text = f"exit {code}"
    else:
        text = "it ended"
    return text + (", out of memory" if last_exit.get("oom") else "")


def restarts_lately(history: Sequence[Mapping[str, Any]], restarts: int, now: dt.datetime) -> int:
    """Restarts within `LATELY_S`, from a bounded history of the counter."""
    since = now - dt.timedelta(seconds=LATELY_S)
    before = 0 if len(history) < _HISTORY_KEPT else int(history[0].get("restarts") or 0)
    for entry in history:
        at = entry.get("at")
        if at is None or dt.datetime.fromisoformat(str(at)) > since:
            break
        before = int(entry.get("restarts") or 0)
    return max(0, restarts - before)


def in_a_row(status: str, desired_state: str, healthy: int, wanted: int) -> Sentence:
    """The short form for a row of a list, from counts alone."""
    if desired_state == "deleted":
        return Sentence("off", "being deleted")
    if desired_state == "stopped":
        return Sentence("off", "stopped")
    if status == "created":
        return Sentence("off", "nothing deployed")
    text = f"{healthy} of {wanted} healthy" if wanted else "no instances"
    tones: dict[str, Tone] = {"running": "ok", "deploying": "busy", "degraded": "warn", "crashed": "bad"}
    return Sentence(tones.get(status, "off"), text)

"""What a plan consists of: named actions, each with its reason. Pure data, shown by dry runs and the log as it is."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from instances.placement import Choice
from instances.plan.model import WEB, ProcessSize, ReleaseView


@dataclass(frozen=True, slots=True)
class Begin:
    """The deployment's first step: pending → rolling."""

    deployment: int
    why: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """The release command runs, before anything of the release is started."""

    deployment: int
    why: str


@dataclass(frozen=True, slots=True)
class Place:
    """A new instance; pending when `choice.node` is None. `replaces` are ended rows of the slot, dealt with by this.
    Slots are numbered for each process type."""

    slot: int
    release: ReleaseView
    choice: Choice
    why: str
    attempt: int = 0
    replaces: tuple[int, ...] = ()
    process_type: str = WEB

    @property
    def size(self) -> ProcessSize:
        found = self.release.size_of(self.process_type)
        assert found is not None  # noqa: S101 - only what the release has is placed
        return found


@dataclass(frozen=True, slots=True)
class Assign:
    """A node for an instance that was pending."""

    instance: int
    slot: int
    choice: Choice
    why: str


@dataclass(frozen=True, slots=True)
class Explain:
    """Still no node for a pending instance, for another reason than before."""

    instance: int
    choice: Choice
    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    instance: int
    slot: int
    why: str


@dataclass(frozen=True, slots=True)
class Forget:
    """An instance that ended and needs no successor (any more)."""

    instance: int
    why: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The deployment got closer to its end: its deadline starts anew."""

    deployment: int
    measure: int
    why: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The deployment reached its end: succeeded, or reverted when it was reverting."""

    deployment: int
    why: str


@dataclass(frozen=True, slots=True)
class FailDeployment:
    """`instance` is the one whose end, or whose not getting well, is the evidence."""

    deployment: int
    code: str
    why: str
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class Revert:
    """failed or cancelled → reverting: the release before comes back with its configuration.

    `percent` is what the failing release gets of the requests meanwhile (`rollout.traffic`).
    """

    deployment: int
    release: ReleaseView
    why: str
    percent: int | None = None


@dataclass(frozen=True, slots=True)
class Bake:
    """The new side is ready beside the old one: the time in which it has to prove itself begins."""

    deployment: int
    percent: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Nothing spoke against the new release: it may take over."""

    deployment: int
    percent: int | None
    why: str


@dataclass(frozen=True, slots=True)
class Shift:
    """Requests go elsewhere: `percent` as in `rollout.traffic`; the old side is kept until `warm_until`."""

    deployment: int
    percent: int | None
    why: str
    warm_until: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The release that was to come back does not get well either: the deployment ends, the platform goes on trying."""

    deployment: int
    why: str


@dataclass(frozen=True, slots=True)
class Purge:
    """A deleted app has nothing left that runs: its rows may go."""

    why: str


Action = (
    Prepare | Begin | Place | Assign | Explain | Stop | Forget | Progress | Bake | Promote | Shift | Finish
    | FailDeployment | Revert | GiveUp | Purge
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, what the app's status is, and when to look again though nothing happened."""

    actions: tuple[Action, ...]
    status: str
    wait_until: dt.datetime | None = None
    waiting_for: str = ""

    def changes(self, status: str) -> bool:
        """Whether applying it would change anything for an app whose status column says `status`."""
        return bool(self.actions) or self.status != status


@dataclass(slots=True)
class Draft:
    """A plan in the making."""

    actions: list[Action] = field(default_factory=list)
    wait_until: dt.datetime | None = None
    waiting_for: str = ""

    def wait(self, until: dt.datetime, why: str) -> None:
        if self.wait_until is None or until < self.wait_until:
            self.wait_until, self.waiting_for = until, why


def to_json(action: Action) -> dict[str, Any]:
    """As dry runs and steps show it."""
    shown: dict[str, Any] = {"action": type(action).__name__.lower(), "why": action.why}
    if isinstance(action, Place):
        shown |= {"process_type": action.process_type, "slot": action.slot, "version": action.release.version,
                  "release": action.release.number}  # fmt: skip
    if isinstance(action, (Place, Assign, Explain)):
        shown |= {"node": action.choice.node.name if action.choice.node else None, "placement": action.choice.to_json()}
    if isinstance(action, (Assign, Explain, Stop, Forget)):
        shown["instance_id"] = action.instance
    if isinstance(action, (Assign, Stop)):
        shown["slot"] = action.slot
    if isinstance(action, FailDeployment):
        shown |= {"action": "fail", "code": action.code, "instance_id": action.instance}
    if isinstance(action, (Bake, Promote, Shift)):
        shown["percent_to_new"] = action.percent
    if isinstance(action, Revert):
        shown |= {"version": action.release.version, "release": action.release.number}
    return shown


def brief(action: Action) -> str:
    """As one line of a log."""
    shown = {name: value for name, value in to_json(action).items() if name not in ("placement", "why")}
    named = " ".join(f"{name}={value}" for name, value in shown.items() if name != "action" and value is not None)
    return f"{shown['action']} {named}: {action.why}" if named else f"{shown['action']}: {action.why}"

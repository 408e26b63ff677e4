"""A deployment's course as a few steps that a person can follow. Pure.

Owns which steps each strategy has and which of them is the present one. `instances.deployment_rows.phase_of` says
where a deployment is; here that becomes a line of steps with a state each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["done", "now", "failed", "todo"]


@dataclass(frozen=True, slots=True)
class Stage:
    label: str
    state: State


_STEPS: dict[str, tuple[tuple[str, str], ...]] = {
    "canary": (
        ("pending", "Accepted"), ("starting", "Canary starts"), ("baking", "Canary is judged"),
        ("rolling", "Rolls out"), ("end", "Done"),
    ),
    "blue_green": (
        ("pending", "Accepted"), ("starting", "New set starts"), ("baking", "New set is judged"),
        ("switched", "Requests switch"), ("end", "Done"),
    ),
    "": (("pending", "Accepted"), ("rolling", "Rolls out"), ("end", "Done")),
}  # fmt: skip
_SAME = {"awaiting_promotion": "baking", "switching": "switched", "warm": "end"}


def stages(deployment: Mapping[str, Any]) -> list[Stage]:
    """The steps of a deployment as the API shows it."""
    status, phase = deployment["status"], deployment["phase"]
    steps = _STEPS.get((deployment.get("strategy") or {}).get("type", ""), _STEPS[""])
    if status == "succeeded":
        return [Stage(label, "done") for _, label in steps]
    at = _reached(steps, deployment)
    if status in ("pending", "rolling"):
        return [Stage(label, _state(number, at)) for number, (_, label) in enumerate(steps)]
    found = [Stage(label, "done" if number < at else "failed") for number, (_, label) in enumerate(steps[: at + 1])]
    if status == "cancelled":
        return [*found, Stage("Cancelled", "failed")]
    if status == "failed":
        return [*found, Stage("Failed", "failed")]
    return [*found, Stage("Goes back", "now" if phase == "reverting" else "done"),
            Stage("Back", "todo" if status == "reverting" else "done")]  # fmt: skip


def _state(number: int, at: int) -> State:
    return "done" if number < at else "now" if number == at else "todo"


def _reached(steps: tuple[tuple[str, str], ...], deployment: Mapping[str, Any]) -> int:
    names = [name for name, _ in steps]
    phase = deployment["phase"]
    if phase == "paused" or phase not in {*names, *_SAME}:  # where it was held or ended is told by what has happened
        phase = _from_times(deployment)
    phase = _SAME.get(str(phase), str(phase))
    return names.index(phase) if phase in names else 1


def _from_times(deployment: Mapping[str, Any]) -> str:
    if deployment.get("promoted_at"):
        return "rolling"
    if deployment.get("baking_since"):
        return "baking"
    return "starting"

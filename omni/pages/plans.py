"""A dry run's plan, and what an answer says, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MOST = 40


@dataclass(frozen=True, slots=True)
class Step:
    """`kind` is start, stop or other."""

    kind: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Told:
    """What would happen. `more` steps are left out; `open` is what would stay undone, with what would help."""

    steps: tuple[Step, ...]
    more: int
    settles: bool
    open: tuple[str, ...]
    starts: int
    stops: int


def told(rehearsed: Mapping[str, Any]) -> Told:
    """From the answer to `?dry_run=true`."""
    plan = rehearsed.get("plan") or {}
    steps = [_step(action) for action in plan.get("actions") or ()]
    pending = [
        f"slot {row['slot']} finds no node: {row['reason']}" + _remedy(row.get("remedy") or ())
        for row in plan.get("pending") or ()
    ]
    room = plan.get("placement") or {}
    if room.get("refused"):
        pending.append(str(room["refused"].get("reason", "")))
    return Told(
        tuple(steps[:_MOST]), max(0, len(steps) - _MOST), bool(plan.get("settles", True)), tuple(pending),
        sum(one.kind == "start" for one in steps), sum(one.kind == "stop" for one in steps),
    )  # fmt: skip


def _remedy(changes: Any) -> str:
    found = [str(change.get("text", "")).rstrip(".") for change in changes]
    return f" ({'; '.join(found)})" if found else ""


def _step(action: Mapping[str, Any]) -> Step:
    what, why = action.get("action"), str(action.get("why", ""))
    slot, node = action.get("slot"), action.get("node")
    if what in ("place", "assign"):
        version = f" of version {action['version']}" if action.get("version") else ""
        return Step("start", f"Slot {slot}{version} starts {f'on {node}' if node else 'once a node has room'}", why)
    if what == "stop":
        return Step("stop", f"Slot {slot} stops{f' on {node}' if node else ''}", why)
    if what == "shift":
        return Step("other", "Requests go to the new set", why)
    if what == "bake":
        percent = action.get("percent_to_new")
        return Step(
            "other", f"The new release is watched{f', with {percent} % of the requests' if percent else ''}", why
        )
    if what == "promote":
        return Step("other", "The new release takes over", why)
    if what == "await_promotion":
        return Step("other", "Waits until somebody promotes it", why)
    if what == "destroy_volume":
        size = action.get("size_bytes")
        told = f", {size / 1_000_000:.1f} MB," if isinstance(size, int) else ""
        return Step("other", f"The data of volume {action.get('volume')}{told} on {node} is destroyed for good", why)
    if what == "destroy_snapshots":
        return Step("other", f"{action.get('count')} snapshots of volumes are destroyed for good", why)
    return Step("other", str(what).replace("_", " ").capitalize(), why)


def outcome(body: Mapping[str, Any]) -> str:
    """What an accepted call has set off, as a further sentence."""
    deployment = _deployment(body)
    return f" Deployment {deployment['id']} is on its way." if deployment else ""


def follow(body: Mapping[str, Any]) -> str:
    """The page to watch it on; empty where there is none."""
    found = _deployment(body)
    return f"/admin/app/{found['app_id']}/deployments/{found['id']}/" if found else ""


def _deployment(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = body.get("deployment") if isinstance(body.get("deployment"), Mapping) else body
    if found and "phase" in found and "kind" in found and "app_id" in found:
        return found
    return None

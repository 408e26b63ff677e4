"""Deploy freezes: nothing new is deployed to an app, for a reason that is told to whoever tries.

Owns what is stored in `App.freeze` and who is refused by it. What goes on already, restarts, scaling, starting,
stopping and going back by itself are not held up: a freeze is there to keep things as they are.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from apps.models import App
from consensus.gate import Transaction
from omni.kernel.clock import rfc3339
from omni.kernel.errors import Conflict


def stored(tx: Transaction, app: App, given: dict[str, Any] | None) -> dict[str, Any]:
    """What a PATCH of `freeze` leaves in the row; the same again changes nothing."""
    if given is None:
        return {}
    wanted = {"reason": given["reason"], "until": rfc3339(given.get("until"))}
    if {name: app.freeze.get(name) for name in wanted} == wanted:
        return dict(app.freeze)
    return {**wanted, "by": tx.actor.label, "at": rfc3339(tx.at)}


def in_force(app: App, now: dt.datetime) -> dict[str, Any] | None:
    """The freeze, unless there is none or its time is over."""
    if not app.freeze:
        return None
    until = app.freeze.get("until")
    over = until is not None and dt.datetime.fromisoformat(until) <= now
    return None if over else dict(app.freeze)


def refuse(tx: Transaction, app: App, *, override: bool = False) -> None:
    """Raises Conflict `frozen`; with `override` the exception is recorded instead."""
    freeze = in_force(app, tx.at)
    if freeze is None:
        return
    if override:
        tx.record("app.freeze_overridden", "app", app.pk, org_id=app.org_id, app_id=app.pk,
                  change={"reason": freeze["reason"], "by": tx.actor.label})  # fmt: skip
        return
    until = f" until {freeze['until']}" if freeze.get("until") else ""
    raise Conflict(
        f"{app.name} is frozen{until}: {freeze['reason']} (by {freeze['by']})", code="frozen",
        next=f'PATCH /app/{app.pk} {{"freeze": null}} lifts it; ?override_freeze=true deploys all the same',
    )  # fmt: skip

"""Verbs on event webhooks. Delivery is the leader's (`omni.daemon.event_hooks`); what is told is decided here.

Owns the rows' changes and which events a hook is told of. A secret is shown when it is made, and sealed at rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import F, QuerySet

from accounts import access
from accounts.models import EventHook, Org
from consensus.gate import Transaction
from omni.kernel.context import Actor
from omni.kernel.errors import NotFound
from omni.kernel.models import Event
from omni.kernel.seal import seal
from omni.outgoing.webhooks import new_secret


def seen_by(actor: Actor) -> QuerySet[EventHook]:
    return access.visible(actor, EventHook.objects.all())


def find(actor: Actor, hook_id: int) -> EventHook:
    """Raises NotFound, for another org's as well."""
    row = seen_by(actor).filter(pk=hook_id).first()
    if row is None:
        raise NotFound("There is no such webhook.", next="GET /webhooks")
    return row


def create(
    tx: Transaction, *, org: Org | None, app_id: int | None, url: str, kinds: Sequence[str], secret: str = ""
) -> tuple[EventHook, str]:
    """The hook and its secret. It is told of what happens from now on."""
    secret = secret or new_secret()
    newest = Event.objects.order_by("-key").values_list("key", flat=True).first() or 0
    row = EventHook.objects.create(
        org=org, app_id=app_id, url=url, secret=seal(secret), kinds=list(kinds), since_key=newest,
        created_by=tx.actor.label, created_at=tx.at, updated_at=tx.at,
    )  # fmt: skip
    _record(tx, "webhook.created", row, {"url": url, "kinds": list(kinds)})
    return row, secret


def update(tx: Transaction, row: EventHook, values: dict[str, Any]) -> None:
    """`active` again: it is told of what it missed, as far as that is kept."""
    changes = {name: value for name, value in values.items() if getattr(row, name) != value}
    if not changes:
        return
    if changes.get("active"):
        changes["why_inactive"] = ""
    EventHook.objects.filter(pk=row.pk).update(**changes, updated_at=tx.at, revision=F("revision") + 1)
    row.refresh_from_db()
    _record(tx, "webhook.updated", row, {name: value for name, value in changes.items() if name != "why_inactive"})


def delete(tx: Transaction, row: EventHook) -> None:
    _record(tx, "webhook.deleted", row, {"url": row.url})
    EventHook.objects.filter(pk=row.pk).delete()


def give_up(tx: Transaction, hook_id: int, why: str) -> None:
    """The sender has tried for long enough, or was told to stop."""
    row = EventHook.objects.filter(pk=hook_id, active=True).first()
    if row is not None:
        EventHook.objects.filter(pk=row.pk).update(
            active=False, why_inactive=why[:300], updated_at=tx.at, revision=F("revision") + 1
        )
        _record(tx, "webhook.given_up", row, {"why": why[:300]})


def tells(kinds: Sequence[str], kind: str) -> bool:
    """Whether a hook with these kinds is told of an event. Pure."""
    return not kinds or any(kind == one or (one.endswith(".*") and kind.startswith(one[:-1])) for one in kinds)


def _record(tx: Transaction, kind: str, row: EventHook, change: dict[str, Any]) -> None:
    tx.record(kind, "webhook", row.pk, org_id=row.org_id, app_id=row.app_id, change=change)

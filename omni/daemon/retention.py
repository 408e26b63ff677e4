"""What the leader forgets: old events and old answers to repeated requests.

Owns the pace (small batches, so that no write waits for it) and nothing else; telemetry has retention of its own.
"""

from __future__ import annotations

import datetime as dt

from django.conf import settings

from consensus import gate
from consensus.gate import Transaction
from consensus.models import StoredReply
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.models import Event

EVERY_S = 60.0
_BATCH = 1000


def tick() -> None:
    """Remove one batch of each, if there is anything to remove."""
    times = settings.CONFIG.timings
    replies = clock.now() - dt.timedelta(seconds=times.idempotency_ttl_s)
    events = clock.now() - dt.timedelta(seconds=times.event_retention_s)
    old_replies = list(StoredReply.objects.filter(created_at__lt=replies).values_list("id", flat=True)[:_BATCH])
    # keys ascend with time, so the oldest stand first in the primary key
    oldest = Event.objects.order_by("key").values_list("key", "at")[:_BATCH]
    old_events = [key for key, at in oldest if at < events]
    if not old_replies and not old_events:
        return

    def forget(tx: Transaction) -> None:
        StoredReply.objects.filter(id__in=old_replies).delete()
        Event.objects.filter(key__in=old_events).delete()
        tx.record("retention.applied", "platform", 0, change={"replies": len(old_replies), "events": len(old_events)})

    gate.run(forget, actor=system("retention"), cause="retention")

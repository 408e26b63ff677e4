"""Tells event webhooks what happened: the leader reads on where each was told last, and sends in order, signed.

At least once: a message's id is the event's own number, the same with every try and from every leader, so that the
receiver can drop what it has had. A hook that does not answer waits longer and longer and holds up no other; one that
refuses for good, or fails for hours, is given up as an event that says why. Owns the pace; signing, address policy and
what an answer means are `omni.outgoing`'s. How far a hook was told is telemetry: telling is no change of the platform.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from accounts import event_hooks
from accounts.models import EventHook, EventHookProgress
from consensus import gate
from omni.api.events import show
from omni.kernel import clock
from omni.kernel.context import system
from omni.kernel.models import Event
from omni.kernel.seal import SealBroken, unseal
from omni.outgoing import webhooks
from omni.outgoing.retries import WEBHOOKS
from omni.outgoing.webhooks import Endpoint, Message, Outcome

EVERY_S = 0.5
_AT_ONCE = 50  # events of one turn of one hook
_LOOKED_AT = 500
_SENDERS = 8
_log = logging.getLogger("omni.webhooks")

Deliver = Callable[[Endpoint, Message], Outcome]


@dataclass(frozen=True, slots=True)
class _Sent:
    """What came of one turn: the last event that was delivered, how many were, and the outcome of the last try."""

    key: int
    count: int
    outcome: Outcome | None


@dataclass(slots=True)
class EventHooks:
    """One per leadership."""

    deliver: Deliver = webhooks.deliver
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_SENDERS, thread_name_prefix="hook"))
    _sending: dict[int, Future[_Sent]] = field(default_factory=dict)

    def tick(self) -> float | None:
        """Take what was sent, send what is due. The seconds until there is something to do again."""
        for hook_id in [hook_id for hook_id, turn in self._sending.items() if turn.done()]:
            self._settle(hook_id, self._sending.pop(hook_id).result())
        rows = list(EventHook.objects.filter(active=True).exclude(pk__in=self._sending))
        told = {row.hook_id: row for row in EventHookProgress.objects.filter(hook_id__in=[row.pk for row in rows])}
        now_us = clock.to_us(clock.now())
        for row in rows:
            progress = told.get(row.pk) or EventHookProgress(hook_id=row.pk, key=row.since_key, at_us=now_us)
            if progress.next_at_us <= now_us:
                self._begin(row, progress)
        if self._sending:
            return 0.05
        return EVERY_S if rows else None

    def _begin(self, row: EventHook, progress: EventHookProgress) -> None:
        events = Event.objects.filter(key__gt=progress.key)
        if row.org_id is not None:
            events = events.filter(org_id=row.org_id)
        if row.app_id is not None:
            events = events.filter(app_id=row.app_id)
        found = list(events.order_by("key")[:_LOOKED_AT])
        wanted = [event for event in found if event_hooks.tells(row.kinds, event.kind)]
        if not wanted:
            if found:
                self._keep(progress, key=found[-1].key)
            return
        try:
            endpoint = Endpoint(row.url, str(unseal(row.secret)))
        except SealBroken as broken:
            self._give_up(row.pk, str(broken))
            return
        messages = [(event.key, Message(f"evt_{event.position}", event.kind, show(event)))
                    for event in wanted[:_AT_ONCE]]  # fmt: skip
        self._sending[row.pk] = self._pool.submit(self._send, endpoint, messages, progress.key)

    def _send(self, endpoint: Endpoint, messages: Sequence[tuple[int, Message]], key: int) -> _Sent:
        """In order, until one fails. No database on these threads."""
        outcome, count = None, 0
        for at, message in messages:
            outcome = self.deliver(endpoint, message)
            if not outcome.delivered:
                break
            key, count = at, count + 1
        return _Sent(key, count, outcome)

    def _settle(self, hook_id: int, sent: _Sent) -> None:
        row = EventHook.objects.filter(pk=hook_id).first()
        if row is None or sent.outcome is None:
            return
        progress = EventHookProgress.objects.filter(hook_id=hook_id).first()
        progress = progress or EventHookProgress(hook_id=hook_id, key=row.since_key, at_us=0)
        failures, pause_s, outcome = 0, 0.0, sent.outcome
        if not outcome.delivered:
            failures = progress.failures + 1 if not sent.count else 1
            wait = WEBHOOKS.pause_s(failures, random.random())  # noqa: S311
            if wait is None or outcome.final:
                self._give_up(hook_id, f"after {failures} tries: {outcome.detail}")
                failures, wait = 0, None  # made active again it begins anew
            pause_s = wait or 0.0
        self._keep(
            progress, key=max(sent.key, progress.key), failures=failures, last_status=outcome.status,
            last_detail=outcome.detail[:200], delivered=progress.delivered + sent.count,
            next_at_us=clock.to_us(clock.now()) + int(pause_s * 1e6),
        )  # fmt: skip

    def _keep(self, progress: EventHookProgress, **values: object) -> None:
        values = {"at_us": clock.to_us(clock.now()), **values}
        defaults = {"key": progress.key, **values}
        EventHookProgress.objects.update_or_create(hook_id=progress.hook_id, defaults=defaults)

    def _give_up(self, hook_id: int, why: str) -> None:
        _log.warning("webhook %d is given up: %s", hook_id, why)
        gate.run(lambda tx: event_hooks.give_up(tx, hook_id, why), actor=system("webhooks"), cause="not delivered")

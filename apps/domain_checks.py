"""The leader's rounds: which domains are looked up when, and handing on what was found.

Owns the schedule, in memory: a new leader begins it anew, the rows say what is proven. Only a finding that changes
something is written. Must not decide what a finding means (`domain_proof` does).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from django.conf import settings

from apps import domains
from apps.domain_lookup import Lookup, Question
from apps.domain_proof import Finding
from apps.models import DesiredState, Domain
from consensus import gate
from omni.kernel import clock, resolvers
from omni.kernel.context import system

EVERY_S = 1.0
ALL_S = 60.0
BATCH = 32
PENDING_S = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
LATER_S = 3600.0  # for a domain that was not proven in its first day
_PATIENCE = len(PENDING_S) + 24 * 12
_FAILING_S = 300.0


class Asks(Protocol):
    def ask(self, questions: Sequence[Question]) -> list[Finding]: ...


class DomainChecks:
    """`tick` is called again and again while this member leads."""

    def __init__(self, lookup: Asks | None = None, spread: Callable[[], float] = random.random) -> None:
        config = settings.CONFIG.domains
        self._lookup = lookup or Lookup(resolvers.parse(config.resolvers), config.query_timeout_s)
        self._recheck_s, self._spread = config.recheck_s, spread
        self._due: dict[int, float] = {}
        self._tries: dict[int, int] = {}
        self._newest = 0
        self._all_at = 0.0

    def step(self) -> float | None:
        """`tick`, and the seconds until the next look-up is due (None: none is)."""
        self.tick()
        return max(min(self._due.values()) - clock.monotonic(), 0.0) if self._due else None

    def tick(self) -> None:
        now = clock.monotonic()
        self._discover(now)
        ids = sorted((at, domain_id) for domain_id, at in self._due.items() if at <= now)[:BATCH]
        if ids:
            self._check([domain_id for _, domain_id in ids])

    def _discover(self, now: float) -> None:
        """New rows have higher ids, but may be committed in another order; the gone are noticed at their turn."""
        found = Domain.objects.order_by("pk")
        if now < self._all_at:
            found = found.filter(pk__gt=self._newest)
        else:
            self._all_at = now + ALL_S
        for domain_id, verified_at, failing_since in found.values_list("pk", "verified_at", "failing_since"):
            self._newest = max(self._newest, domain_id)
            if domain_id not in self._due:
                proven = verified_at is not None and failing_since is None
                self._due[domain_id] = now + (self._recheck_s * self._spread() if proven else 0.0)

    def _check(self, ids: list[int]) -> None:
        rows = list(Domain.objects.filter(pk__in=ids).exclude(app__desired_state=DesiredState.DELETED))
        for domain_id in set(ids) - {row.pk for row in rows}:
            self._due.pop(domain_id)
            self._tries.pop(domain_id, None)
        questions = [Question(row.name, domains.record_of(row.app_id, row.name)["value"]) for row in rows]
        findings = dict(zip((row.pk for row in rows), self._lookup.ask(questions), strict=True))
        at = clock.now()
        changed = {row.pk: findings[row.pk] for row in rows if domains.changes_anything(row, findings[row.pk], at)}
        for row in rows:  # before the write: one that is refused is tried again after the same pause
            self._due[row.pk] = clock.monotonic() + self._pause(row, findings[row.pk])
        if changed:
            gate.run(lambda tx: domains.take_findings(tx, changed), actor=system("domains"), cause="DNS look-up")

    def _pause(self, row: Domain, finding: Finding) -> float:
        if finding.verdict == "seen":
            self._tries.pop(row.pk, None)
            return self._recheck_s * (0.9 + 0.2 * self._spread())
        if row.verified_at is not None:
            return min(_FAILING_S, self._recheck_s)
        tries = self._tries[row.pk] = self._tries.get(row.pk, -1) + 1
        if tries > _PATIENCE:
            return LATER_S
        return PENDING_S[min(tries, len(PENDING_S) - 1)]

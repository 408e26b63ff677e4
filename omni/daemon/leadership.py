"""The member's leadership: claims the fence, keeps the lease page fresh, says when to start and stop.

Owns the one place where leadership turns into work. With the static lease the first entry of `instances` leads; Raft
takes the place of that rule behind the same steps: elected → claim the fence → bootstrap → page → controllers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import Error, close_old_connections, connections

from consensus import fence
from consensus.lease import Held
from consensus.page import PageWriter
from consensus.static import LEASE_S, StaticLease
from omni.kernel import clock, failpoints

RENEW_S = 0.5
_FENCE_CHECK_S = 2.0
_RETRY_S = 2.0
_log = logging.getLogger("omni.leadership")


@dataclass(slots=True)
class Leadership:
    """`on_elected` runs after each claim, before the page says so; `on_deposed` when the lease is gone."""

    lease: StaticLease
    page: PageWriter
    cluster_id: str
    member: str
    on_elected: Callable[[], None]
    on_deposed: Callable[[], None]
    _claim: fence.Claim | None = None
    _try_at: float = 0.0
    _checked_at: float = field(default=0.0)
    _complaint: str = ""

    def tick(self) -> None:
        """One step, every half second: claim if it is ours to claim, check that it is still ours, renew the page."""
        now = clock.monotonic()
        if self.lease.is_candidate:
            if self._claim is None and now >= self._try_at:
                self._try_to_lead(now)
            elif self._claim is not None and now - self._checked_at > _FENCE_CHECK_S:
                self._check_fence(now)
        answer = self.lease.current()
        if isinstance(answer, Held):
            self.page.held(answer, self.lease.me)
        else:
            self.page.not_held(answer.leader, clock.monotonic() + LEASE_S)

    def stop(self) -> None:
        self._step_down("the daemon stops")
        self.page.close()

    def _try_to_lead(self, now: float) -> None:
        self._try_at = now + _RETRY_S
        close_old_connections()
        try:
            claim = fence.claim(self.cluster_id, self.member)
            failpoints.hit("claimed_before_serve")
            self.lease.grant(claim.epoch, claim.claim_id)
            self.on_elected()
        except (Error, fence.ForeignCluster, fence.ClaimLost) as error:
            self.lease.revoke()
            connections.close_all()
            self._complain(f"cannot lead: {error}")
            return
        self._claim, self._checked_at, self._complaint = claim, now, ""
        _log.info("leading under epoch %d from write index %d", claim.epoch, claim.write_index)

    def _check_fence(self, now: float) -> None:
        """Somebody may have claimed after us. A database that does not answer deposes nobody."""
        self._checked_at = now
        try:
            epoch, _, _, holder = fence.read()
        except Error:
            connections.close_all()
            return
        if self._claim is not None and epoch != self._claim.epoch:
            self._step_down(f"{holder} claimed epoch {epoch}")

    def _step_down(self, reason: str) -> None:
        if self._claim is None:
            return
        _log.warning("stepping down: %s", reason)
        self._claim = None
        self.lease.revoke()
        self.on_deposed()

    def _complain(self, text: str) -> None:
        if text != self._complaint:  # once, not every two seconds
            _log.error("%s", text)
        self._complaint = text

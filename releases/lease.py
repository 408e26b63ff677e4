"""Keeping a build's lease, in a thread of its own: heartbeats, the steps so far, and the order to stop.

Owns the one answer to "may this attempt go on?". Does no work on the build, and never gives a lease more time than
the control plane said: counted from before the call that renewed it.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from releases.build_errors import BuildStopped, StopReason
from releases.contract import Claim, Renewed, Step, StepName, StepStatus
from releases.worker_client import LeaseLost, WorkerClientError

log = logging.getLogger(__name__)
_AFTER_TROUBLE_S = 0.5


class Heartbeats(Protocol):
    """The one call that is needed here (`worker_client.ControlPlane`)."""

    def heartbeat(
        self, build_id: int, token: str, builder: str, steps: tuple[Step, ...], within_s: float
    ) -> Renewed: ...


class Stop:
    """An order to stop that is given once; the first reason counts."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self.reason: StopReason | None = None

    def order(self, reason: StopReason) -> None:
        with self._lock:
            if self.reason is None:
                self.reason = reason
                self._event.set()

    def ordered(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises BuildStopped once the order was given."""
        if self.reason is not None:
            raise BuildStopped(self.reason)


class Steps:
    """The steps of one attempt, recorded before and after each."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._lock = threading.Lock()

    def started(self, name: StepName) -> None:
        with self._lock:
            self._steps.append(Step(name, "running", _now()))

    def ended(self, status: StepStatus) -> None:
        with self._lock:
            self._steps[-1] = replace(self._steps[-1], status=status, finished_at=_now())

    def all(self) -> tuple[Step, ...]:
        with self._lock:
            return tuple(self._steps)


class LeaseKeeper:
    """`with LeaseKeeper(...)`: heartbeats until the end of the block, or until `stop` is ordered by one."""

    def __init__(self, plane: Heartbeats, claim: Claim, steps: Steps, stop: Stop, interval_s: float) -> None:
        self.builder = ""
        self._plane = plane
        self._claim = claim
        self._steps = steps
        self._stop = stop
        self._interval_s = interval_s
        self._ends_at = time.monotonic() + claim.lease_s
        self._wake = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{claim.build_id}", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def left_s(self) -> float:
        """How long the lease still holds."""
        return max(0.0, self._ends_at - time.monotonic())

    def tell(self) -> None:
        """A step began or ended: report it now instead of with the next heartbeat."""
        self._wake.set()

    def _run(self) -> None:
        while not self._over.is_set():
            if not self._beat():
                return
            self._wake.wait(self._interval_s)
            self._wake.clear()  # not before the beat: it would wait on although the block has ended meanwhile

    def _beat(self) -> bool:
        asked_at = time.monotonic()
        claim = self._claim
        try:
            renewed = self._plane.heartbeat(
                claim.build_id, claim.token, self.builder, self._steps.all(), min(self.left_s(), 3 * self._interval_s)
            )
        except LeaseLost:
            self._stop.order("lease_lost")
            return False
        except (WorkerClientError, ValueError) as error:
            log.warning("build %s: heartbeat: %s", claim.build_id, error)
            if self.left_s() <= 0:
                self._stop.order("lease_lost")
                return False
            self._over.wait(_AFTER_TROUBLE_S)
            return True
        self._ends_at = asked_at + renewed.lease_s
        if renewed.cancel:
            self._stop.order("cancelled")
        return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

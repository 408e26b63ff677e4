"""Threads that do one thing again and again while this member leads.

Owns pace, wake-up and survival: a tick that raises is logged and repeated later, never fatal; connections are looked
after. Each loop belongs to one epoch and can write under no other. What a tick does is the business of its owner.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from django.db import close_old_connections, connections

from consensus import gate
from omni.daemon.pulse import Pulse
from omni.kernel import clock, measures
from omni.kernel.errors import NoLeader

_log = logging.getLogger("omni.daemon")
_AFTER_ERROR_S = 2.0
REST_S = 5.0  # a loop that is woken by writes looks by itself so often, whatever else it hopes for


class Loop:
    """Runs `tick` every `interval_s`; `tick` may return the seconds until it wants to run again, or None.

    With a `pulse` it runs after writes, no sooner than `interval_s` after the last time, and without any at `REST_S`.
    """

    def __init__(
        self, name: str, tick: Callable[[], float | None], interval_s: float, pulse: Pulse | None = None
    ) -> None:
        self._name, self._tick, self._interval_s = name, tick, interval_s
        self._longest_s = interval_s if pulse is None else max(REST_S, interval_s)
        self._stop, self._wake = threading.Event(), threading.Event()
        if pulse is not None:
            pulse.tell(self._wake)
        self._epoch = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, epoch: int) -> None:
        self._epoch = epoch
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; does not wait for a tick that hangs (its epoch keeps it from committing)."""
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        gate.pin(self._epoch)
        while not self._stop.is_set():
            self._wake.clear()  # before the tick: what is written meanwhile is for the next one
            began = clock.monotonic()
            close_old_connections()
            try:
                with measures.timed(measures.loop_seconds.labels(self._name)):
                    wish = self._tick()
                pause = self._longest_s if wish is None else min(wish, self._longest_s)
            except NoLeader:
                pause = self._interval_s  # deposed in the middle of it: we are about to be stopped
            except Exception:
                _log.exception("%s failed and will be repeated", self._name)
                measures.loop_failures.labels(self._name).inc()
                connections.close_all()
                pause = _AFTER_ERROR_S
            self._rest(began, pause)
        connections.close_all()

    def _rest(self, began: float, pause: float) -> None:
        """`pause`, cut short by a write, which is answered at our pace."""
        until = clock.monotonic() + pause
        if self._wake.wait(pause):
            self._stop.wait(max(0.0, min(until, began + self._interval_s) - clock.monotonic()))

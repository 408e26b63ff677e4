"""Keeps the control plane's figures over time: every ten seconds what this member counted since the last time.

Owns the difference between two readings. Runs on every member, leader or not, in a thread of its own; writes telemetry
only. A step that cannot be stored is lost, and the next one holds its own figures only: a gap shows as a gap.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from django.db import close_old_connections, connections

from instances.telemetry import platform_series
from instances.telemetry.platform_series import Counted
from omni.api import measured
from omni.kernel import clock

STEP_S = platform_series.STEPS_S[0]
_log = logging.getLogger("omni.daemon")


def growth(before: Mapping[str, Counted], now: Mapping[str, Counted]) -> dict[str, Counted]:
    """What was counted between two readings; gauges as they are now. Pure.

    Series that nothing happened to are left out. One that has become smaller began anew.
    """
    found = {}
    for key, counted in now.items():
        last = before.get(key)
        if counted.peak is not None or last is None or counted.total < last.total or counted.count < last.count:
            grown = counted
        else:
            pairs = zip(counted.buckets, last.buckets, strict=False)
            buckets = tuple(a - b for a, b in pairs)
            grown = Counted(counted.count - last.count, counted.total - last.total, None, counted.bounds, buckets)
        if grown.peak is not None or grown.count or grown.total:
            found[key] = grown
    return found


class Recorder:
    """`tick` once a step; the first one only remembers."""

    def __init__(self, node: str, read: Callable[[], dict[str, Counted]] = measured.totals) -> None:
        self._node, self._read = node, read
        self._last: dict[str, Counted] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def tick(self, at_us: int) -> None:
        now = self._read()
        last, self._last = self._last, now
        if last is not None:
            step_us = STEP_S * 1_000_000
            platform_series.store(self._node, STEP_S, (at_us - 1) // step_us * step_us, growth(last, now))

    def _run(self) -> None:
        while not self._stop.wait(STEP_S - clock.now().timestamp() % STEP_S):
            try:
                close_old_connections()
                self.tick(clock.to_us(clock.now()))
            except Exception as error:  # the database is away, or a file of counts is being made: the next step tells
                _log.info("the control plane's own figures were not recorded: %s", error)
                connections.close_all()
        connections.close_all()

"""Notices that something was written: one reading of the fence for all loops of the leader.

Owns the reading and whom it wakes. What was written is the business of whoever is woken. A database that does not
answer wakes nobody: every loop also comes round by itself.
"""

from __future__ import annotations

import logging
import threading

from django.db import close_old_connections, connections

from consensus import fence

EVERY_S = 0.2  # bounds how late the leader's loops notice a change
_AFTER_ERROR_S = 1.0
_log = logging.getLogger("omni.daemon")


class Pulse:
    """One per leadership. Sets every event that was given to `tell` when the write index has moved."""

    def __init__(self) -> None:
        self._index = -1
        self._told: list[threading.Event] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def tell(self, wake: threading.Event) -> None:
        """Before `start`."""
        self._told.append(wake)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; does not wait for a reading that hangs."""
        self._stop.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def look(self) -> None:
        """One reading. Raises the database's errors."""
        index = fence.write_index()
        if index != self._index:
            self._index = index
            for wake in self._told:
                wake.set()

    def _run(self) -> None:
        pause = EVERY_S
        while not self._stop.wait(pause):
            try:
                close_old_connections()
                self.look()
                pause = EVERY_S
            except Exception as error:  # whoever needs the database says so
                _log.debug("the fence cannot be read: %s", error)
                connections.close_all()
                pause = _AFTER_ERROR_S
        connections.close_all()

"""Tells this member's Raft process four times a second whether the member could do a leader's work.

Owns the pace and the silence: a daemon whose main loop stands still says nothing, and Raft hands the leadership over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from consensus.lease import ConsensusUnavailable
from consensus.raft.client import CommandRefused, CommandUnknown, RaftClient

EVERY_S = 0.25
_log = logging.getLogger("omni.leadership")


class Announcer:
    """`able` answers True or False, or None for: say nothing."""

    def __init__(self, client: RaftClient, able: Callable[[], bool | None]) -> None:
        self._client, self._able = client, able
        self._stop = threading.Event()
        self._said: bool | None = None
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S if self._said is not None else EVERY_S / 5):
            able = self._able()
            if able is None:
                continue
            try:
                self._client.announce(able)
            except (ConsensusUnavailable, CommandUnknown, CommandRefused) as error:
                if self._said is not None:
                    _log.warning("the Raft process does not hear this daemon: %s", error)
                self._said = None
            else:
                if able != self._said:
                    _log.info("announced as %s to lead", "able" if able else "not able")
                self._said = able

"""Whether this member's own web server is there: a leader without one could not be sent a single write.

Owns that question, asked once a second. Only a refused connection counts as *no*: a server that is slow because it has
much to do must not lose the leadership for it.
"""

from __future__ import annotations

import socket
import threading

EVERY_S = 1.0
_TIMEOUT_S = 1.0
_REFUSALS = 2  # in a row: one may be a worker that is being replaced


class OwnWeb:
    def __init__(self, address: str, port: int) -> None:
        self._where = (address, port)
        self._refusals = _REFUSALS  # until it was seen once
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="own-web", daemon=True)

    @property
    def listens(self) -> bool:
        return self._refusals < _REFUSALS

    def look(self) -> None:
        try:
            socket.create_connection(self._where, timeout=_TIMEOUT_S).close()
        except ConnectionRefusedError:
            self._refusals += 1
        except OSError:
            pass
        else:
            self._refusals = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(EVERY_S if self.listens else EVERY_S / 4)

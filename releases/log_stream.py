"""What a build prints, on its way to the control plane while it runs.

Owns the queue between the build and the network: lines are numbered from 1, sent in order and in batches, and none
is dropped: a build that prints faster than lines are taken has to wait. Once the lease is lost, nothing is sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from releases.contract import LINE_BYTES, SYSTEM
from releases.worker_client import LeaseLost, Refused, WorkerClientError

log = logging.getLogger(__name__)

Send = Callable[[int, list[list[Any]]], None]
_BATCH_LINES, _BATCH_BYTES = 1000, 512 * 1024
_QUEUE_BYTES = 8 * 1024 * 1024
_PAUSE_S = 0.3
_SHOWN = {code: "\ufffd" for code in range(32) if chr(code) not in "\t\x1b"} | {127: None}


class LogStream:
    """`with LogStream(send) as stream`: the end of the block waits (at most `patience_s`) until all is sent."""

    def __init__(self, send: Send, patience_s: float = 5.0) -> None:
        self._send = send
        self._patience_s = patience_s
        self._lines: deque[list[Any]] = deque()
        self._bytes = 0
        self._next = 1  # sequence of the first line in the queue
        self._dead = False
        self._closed_at: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="build-log", daemon=True)

    def __enter__(self) -> LogStream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed_at = time.monotonic()
            self._changed.notify_all()
        self._thread.join(self._patience_s + 1)

    def say(self, text: str) -> None:
        """A line of the platform's own."""
        self.line(SYSTEM, text)

    def line(self, stream: int, text: str) -> None:
        """Queue one line; waits while too much is queued."""
        plain = clean(text)
        with self._changed:
            self._changed.wait_for(lambda: self._dead or self._bytes < _QUEUE_BYTES)
            if self._dead:
                return
            self._lines.append([time.time_ns() // 1000, stream, plain])
            self._bytes += len(plain) + 64
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            batch = self._take()
            if not batch or self._dead:
                return
            self._deliver(batch)
            self._gather()

    def _gather(self) -> None:
        """Lets lines gather: few calls, and still at once for whoever watches. Not once the build has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed_at is not None or self._bytes >= _BATCH_BYTES, _PAUSE_S)

    def _take(self) -> list[list[Any]]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._lines) or self._closed_at is not None)
            batch: list[list[Any]] = []
            size = 0
            for line in self._lines:
                size += len(line[2])
                if batch and (len(batch) == _BATCH_LINES or size > _BATCH_BYTES):
                    break
                batch.append(line)
            return batch

    def _deliver(self, batch: list[list[Any]]) -> None:
        while True:
            try:
                self._send(self._next, batch)
            except LeaseLost:
                return self._die()
            except Refused as error:
                log.warning("the control plane does not take %d log lines: %s", len(batch), error)
            except WorkerClientError as error:
                log.warning("build log: %s", error)
                if self._closed_at is not None and time.monotonic() > self._closed_at + self._patience_s:
                    return self._die()
                time.sleep(_PAUSE_S)
                continue
            return self._done(batch)

    def _done(self, batch: list[list[Any]]) -> None:
        with self._changed:
            for line in batch:
                self._lines.popleft()
                self._bytes -= len(line[2]) + 64
            self._next += len(batch)
            self._changed.notify_all()

    def _die(self) -> None:
        with self._changed:
            self._dead = True
            self._lines.clear()
            self._changed.notify_all()


def clean(text: str) -> str:
    """One line, bounded, without control characters (tabs and colours stay)."""
    raw = text[:LINE_BYTES].translate(_SHOWN).encode("utf-8", "replace")
    return raw[:LINE_BYTES].decode("utf-8", "ignore") if len(raw) > LINE_BYTES else raw.decode("utf-8")

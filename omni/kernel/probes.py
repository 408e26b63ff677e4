"""Questions that must not keep anybody waiting: asked in a thread, answered within a bound, never twice at once.

Owns the threads and the bound. A question that hangs keeps hanging alone: whoever asks again gets the verdict at once
when the bound is over, and no second thread. What is asked is the business of its owner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

BOUND_S = 1.0
FRESH_S = 1.0
Result = TypeVar("Result")


class Probe(Generic[Result]):
    """`ask` is run in a thread of its own; `failed` makes the answer for a text that says why there is none."""

    def __init__(self, ask: Callable[[], Result], failed: Callable[[str], Result]) -> None:
        self._ask, self._failed = ask, failed
        self._lock = threading.Lock()
        self._running: threading.Event | None = None
        self._begun = 0.0
        self._result: Result | None = None
        self._at = float("-inf")

    def begin(self, fresh_s: float = FRESH_S) -> None:
        """Ask, unless that is being done, or was done less than `fresh_s` ago."""
        with self._lock:
            if self._running is not None or time.monotonic() - self._at < fresh_s:
                return
            done = self._running = threading.Event()
            self._begun = time.monotonic()
        threading.Thread(target=self._run, args=(done,), name="probe", daemon=True).start()

    def answer(self, bound_s: float = BOUND_S) -> Result:
        """The last answer, or the one under way when it comes within `bound_s` of its beginning."""
        with self._lock:
            running, begun, result = self._running, self._begun, self._result
        if running is not None:
            if not running.wait(max(0.0, begun + bound_s - time.monotonic())):
                return self._failed(f"no answer within {bound_s:g} s")
            with self._lock:
                result = self._result
        return result if result is not None else self._failed("nobody asked")

    def ask(self, fresh_s: float = FRESH_S, bound_s: float = BOUND_S) -> Result:
        self.begin(fresh_s)
        return self.answer(bound_s)

    def forget(self) -> None:
        """Ask anew next time (tests)."""
        with self._lock:
            self._at, self._result = float("-inf"), None

    def _run(self, done: threading.Event) -> None:
        try:
            result = self._ask()
        except Exception as error:
            result = self._failed(type(error).__name__)
        with self._lock:
            self._result, self._at, self._running = result, time.monotonic(), None
        done.set()


def ask_all(probes: Mapping[str, Probe[Any]], fresh_s: float = FRESH_S) -> dict[str, Any]:
    """All at once: together they take as long as the slowest, at most the bound."""
    for probe in probes.values():
        probe.begin(fresh_s)
    return {name: probe.answer() for name, probe in probes.items()}

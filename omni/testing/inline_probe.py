"""A probe that asks on the caller's own thread, for tests whose data is not committed."""

from __future__ import annotations

from typing import TypeVar

from omni.kernel.probes import BOUND_S, FRESH_S, Probe

Result = TypeVar("Result")


class Inline(Probe[Result]):
    def begin(self, fresh_s: float = FRESH_S) -> None:
        pass

    def answer(self, bound_s: float = BOUND_S) -> Result:
        try:
            return self._ask()
        except Exception as error:
            return self._failed(type(error).__name__)

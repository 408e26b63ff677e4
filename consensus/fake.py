"""A lease for tests: says what it was told to say."""

from __future__ import annotations

from consensus.lease import ConsensusUnavailable, Held, NotHeld
from omni.kernel import clock


class FakeLease:
    """Held under `epoch` until told otherwise."""

    def __init__(self, epoch: int = 1, claim_id: str = "fake") -> None:
        self._answer: Held | NotHeld | None = Held(epoch, clock.monotonic() + 3600, claim_id)

    def hold(self, epoch: int, claim_id: str = "fake") -> None:
        self._answer = Held(epoch, clock.monotonic() + 3600, claim_id)

    def lose(self, leader: str | None) -> None:
        self._answer = NotHeld(leader)

    def fail(self) -> None:
        self._answer = None

    def current(self) -> Held | NotHeld:
        if self._answer is None:
            raise ConsensusUnavailable("the fake lease was told to fail")
        return self._answer

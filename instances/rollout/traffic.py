"""Which instances take requests, and in which pool. Pure.

Owns the rule; the data is one number of the app's newest deployment: the percentage of requests that go to what it
brings. None: nobody is told apart. 0: to none of it. 1 to 99: to the pool `canary`. 100: to nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pool = Literal["stable", "canary"]


@dataclass(frozen=True, slots=True)
class Split:
    """What the deployment brings (instances of `release_id`, none made before deployment `floor`), and its share."""

    release_id: int
    floor: int
    percent: int

    @property
    def canary_percent(self) -> int:
        return self.percent if 0 < self.percent < 100 else 0

    def brings(self, release_id: int, deployment_id: int | None) -> bool:
        return release_id == self.release_id and (deployment_id or 0) >= self.floor

    def pool_of(self, release_id: int, deployment_id: int | None) -> Pool | None:
        """None: it takes no requests."""
        new = self.brings(release_id, deployment_id)
        if self.percent in (0, 100):
            return "stable" if new == (self.percent == 100) else None
        return "canary" if new else "stable"

"""canary: a few instances of the new release take a share of the requests beside all of the old ones. Pure.

After promotion the new release takes the slots over as in `rolling`.
"""

from __future__ import annotations

from instances.rollout import sides
from instances.rollout.fleet import Fleet, Moves
from instances.rollout.rolling import rolling


def canary(fleet: Fleet) -> Moves:
    return sides.beside(fleet) if fleet.stage == "beside" else rolling(fleet)

"""blue_green: a whole set of the new release beside the old one, then all requests go over at once. Pure.

The old set takes no requests after the switch and is kept warm for a time, so that the way back is a switch as well.
"""

from __future__ import annotations

from instances.rollout import sides
from instances.rollout.fleet import Fleet, Moves
from instances.rollout.rolling import rolling


def blue_green(fleet: Fleet) -> Moves:
    if fleet.stage == "beside":
        return sides.beside(fleet)
    if fleet.stage == "warm":
        return sides.warm(fleet)
    return rolling(fleet)

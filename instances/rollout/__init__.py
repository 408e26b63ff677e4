"""Rollout strategies: pure functions from a fleet to its next moves, registered by type.

    rolling    start new, wait until healthy, stop old
    recreate   stop all old, then start new (also every `singleton`)

blue_green and canary register themselves here when they come; until then they are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable

from instances.rollout.fleet import Fleet, Moves
from instances.rollout.recreate import recreate
from instances.rollout.rolling import rolling

STRATEGIES: dict[str, Callable[[Fleet], Moves]] = {"rolling": rolling, "recreate": recreate}

__all__ = ["STRATEGIES", "Fleet", "Moves", "recreate", "rolling"]

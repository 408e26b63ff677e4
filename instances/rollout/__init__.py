"""Rollout strategies: pure functions from a fleet to its next moves, registered by type.

    rolling     start new, wait until ready, stop old
    recreate    stop all old, then start new (also every `singleton`)
    blue_green  all new beside all old, then switch
    canary      a few new beside all old, then rolling

`sides` keeps two releases side by side, `judgement` compares them, `traffic` says which of them takes requests.
"""

from __future__ import annotations

from collections.abc import Callable

from instances.rollout.blue_green import blue_green
from instances.rollout.canary import canary
from instances.rollout.fleet import Fleet, Moves
from instances.rollout.recreate import recreate
from instances.rollout.rolling import rolling

STRATEGIES: dict[str, Callable[[Fleet], Moves]] = {
    "rolling": rolling,
    "recreate": recreate,
    "blue_green": blue_green,
    "canary": canary,
}

__all__ = ["STRATEGIES", "Fleet", "Moves", "blue_green", "canary", "recreate", "rolling"]

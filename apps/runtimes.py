"""Which runtimes the platform's nodes have, for checking an app's wish.

Owns the question only: nodes are above this layer, and whoever knows them gives the answer when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable

ALWAYS = "process"
SWARM = "swarm"
CONTAINERS = ("docker", SWARM)  # those that run images
ALL = (ALWAYS, *CONTAINERS)
Missing = Callable[[str], str | None]


def _nobody_knows(runtime: str) -> str | None:
    return f"No node has the {runtime} runtime; use {ALWAYS}."


_missing: Missing = _nobody_knows


def answer_by(missing: Missing) -> None:
    """`missing` answers None when a node has that runtime, else one sentence that says why none has."""
    global _missing
    _missing = missing


def missing(runtime: str) -> str | None:
    return None if runtime == ALWAYS else _missing(runtime)

"""Which loops the leader runs, and how often.

Owns the list. Each entry is one concern on a thread of its own, so that one that hangs holds up no other.
"""

from __future__ import annotations

from omni.daemon.loops import Loop


def leader_loops() -> list[Loop]:
    return []

"""What this host can do to keep programs apart, found out by trying it.

Owns the trial runs and the facts they yield. Decides nothing with them, and caches nothing: a probe takes a few
tenths of a second, the caller keeps the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Facts:
    """`notes` say in plain sentences why something cannot be had. `user_switch`: programs get a uid of their own."""

    isolation: Literal["bubblewrap", "none"]
    limits: Literal["cgroup-v1", "cgroup-v2", "none"]
    network: Literal["filtered", "shared"]
    notes: list[str] = field(default_factory=list)
    bwrap: str | None = None
    user_switch: bool = False


def probe(bwrap_path: str | None = None) -> Facts:
    raise NotImplementedError

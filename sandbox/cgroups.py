"""Limits on memory, CPU and process count of a whole process tree, by cgroup v1 or v2.

Owns the directories under `omni` in the cgroup file systems and nothing else. Raises Unavailable where the host
does not permit them; never pretends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Version = Literal["cgroup-v1", "cgroup-v2", "none"]


class Unavailable(Exception):
    """This host, or this user on it, cannot have cgroups; the text says why."""


@dataclass(frozen=True, slots=True)
class Group:
    """One limited process tree. Re-opened by name after a restart of the caller: `Group.open(name)`."""

    name: str

    @classmethod
    def create(
        cls,
        name: str,
        memory_bytes: int | None,
        cpu_quota: float | None = None,
        cpu_weight: float = 1.0,
        pids: int | None = None,
    ) -> Group:
        """Idempotent: an existing group of that name gets these limits. `cpu_quota` in cores; weight 1.0 is normal."""
        raise NotImplementedError

    @classmethod
    def open(cls, name: str) -> Group | None:
        raise NotImplementedError

    def enter(self, argv: list[str]) -> list[str]:
        """argv that joins the group first and then becomes `argv`: no moment outside the limits."""
        raise NotImplementedError

    def add(self, pid: int) -> None:
        raise NotImplementedError

    def pids(self) -> list[int]:
        raise NotImplementedError

    def memory_current(self) -> int | None:
        raise NotImplementedError

    def memory_limit(self) -> int | None:
        raise NotImplementedError

    def cpu_usage_us(self) -> int | None:
        raise NotImplementedError

    def oom_kills(self) -> int:
        raise NotImplementedError

    def kill(self, deadline_s: float = 5.0) -> bool:
        """SIGKILL everything inside; True when it is empty."""
        raise NotImplementedError

    def remove(self) -> bool:
        raise NotImplementedError


def version() -> Version:
    raise NotImplementedError

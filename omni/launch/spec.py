"""One process to run, as data: what the plan writes and the supervisors read.

Owns the shape and its JSON. Must import nothing but the standard library: every supervisor holds it for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """`set` and `unset` change the inherited environment. `group`: a process group (session) of its own.

    `mark` goes into the environment as OMNI_PROCESS, so that a later start can find the process and its children.
    Of several that are stopped, those with a higher `stop_order` are told only when the lower ones have ended.
    """

    name: str
    argv: tuple[str, ...]
    log: str
    mark: str
    set: Mapping[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    cwd: str = ""
    stop_timeout_s: float = 8.0
    group: bool = True
    cleanup: tuple[str, ...] = ()  # run once after it was stopped for good
    stop_order: int = 0

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The environment of the process."""
        kept = {name: value for name, value in inherited.items() if name not in self.unset}
        return {**kept, **self.set, "OMNI_PROCESS": self.mark}

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "argv": list(self.argv),
            "log": self.log,
            "mark": self.mark,
            "set": dict(self.set),
            "unset": list(self.unset),
            "cwd": self.cwd,
            "stop_timeout_s": self.stop_timeout_s,
            "group": self.group,
            "cleanup": list(self.cleanup),
            "stop_order": self.stop_order,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ProcessSpec:
        return ProcessSpec(
            name=data["name"],
            argv=tuple(data["argv"]),
            log=data["log"],
            mark=data["mark"],
            set=dict(data.get("set", {})),
            unset=tuple(data.get("unset", ())),
            cwd=data.get("cwd", ""),
            stop_timeout_s=float(data.get("stop_timeout_s", 8.0)),
            group=bool(data.get("group", True)),
            cleanup=tuple(data.get("cleanup", ())),
            stop_order=int(data.get("stop_order", 0)),
        )

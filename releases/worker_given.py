"""What a build worker is told by the process that started it, because it may not find it out itself.

Owns the file: its shape, writing and reading. A worker that nobody told anything probes its host as it is.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from releases.registry_settings import RegistrySettings
from sandbox.probe import Facts

VARIABLE = "OMNI_WORKER_GIVEN"


@dataclass(frozen=True, slots=True)
class Given:
    """`facts` as they hold for the worker's own user; `registries` without credentials."""

    facts: Facts
    registries: RegistrySettings

    def to_json(self) -> str:
        return json.dumps({"facts": asdict(self.facts), "registries": asdict(self.registries)})


def from_json(text: str) -> Given:
    data: dict[str, Any] = json.loads(text)
    registries = data["registries"]
    for name in ("paths", "loopback_ports", "notes"):
        registries[name] = tuple(registries[name])
    return Given(Facts(**data["facts"]), RegistrySettings(**registries))


@cache
def given() -> Given | None:
    """Once a process; None when nobody said anything."""
    path = os.environ.get(VARIABLE)
    return from_json(Path(path).read_text(encoding="utf-8")) if path else None

"""What an engine says of itself, in the words that a node is described in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.runtimes.base import Capabilities
from agent.runtimes.engine.client import OLDEST_API


def capabilities(info: Mapping[str, Any], url: str) -> Capabilities:
    """`info` is the engine's own, with the version of its API as `api`."""
    version = tuple(int(part) for part in str(info["api"]).split("."))
    if version < OLDEST_API:
        wanted = ".".join(map(str, OLDEST_API))
        return absent(f"the engine's API is {info['api']}; {wanted} is wanted")
    notes = [f"engine {info.get('ServerVersion', '?')} at {url}"]
    if not info.get("LiveRestoreEnabled"):
        notes.append("live-restore is off: containers end and start again when the engine restarts")
    limits = "none" if info.get("MemoryLimit") is False else f"cgroup-v{info.get('CgroupVersion', '1')}"
    return Capabilities(True, "container", limits, "per app", notes)


def absent(why: str) -> Capabilities:
    return Capabilities(False, "none", "none", "shared", [why])

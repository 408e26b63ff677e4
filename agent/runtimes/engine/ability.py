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


def not_a_manager(info: Mapping[str, Any]) -> str:
    """Why services cannot be handed to this engine, and what to do about it; empty when they can."""
    swarm = info.get("Swarm") or {}
    if swarm.get("ControlAvailable"):
        return ""
    state = swarm.get("LocalNodeState", "inactive")
    if state == "active":
        return "the engine is a worker of its swarm: `docker node promote` it on a manager, or set agent.docker to one"
    if state == "locked":
        return "the engine's swarm is locked: `docker swarm unlock` opens it"
    if state in ("pending", "error"):
        return f"the engine's swarm is in state {state}: {swarm.get('Error') or 'it says no more'}"
    return (
        "the engine is in no swarm: `docker swarm init` makes one, "
        "`docker swarm join` with a manager's token enters one"
    )

"""The platform's own parts as the leader's watch over services sees them.

Owns the translation of what `omni.api.parts` is answered into outcomes of checks. Waits for nothing longer than a
probe's bound, and takes an answer of the last seconds for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omni.api import parts
from omni.celery import app as celery
from omni.kernel.probes import Probe, ask_all
from services.looking import PartSeen

_FRESH_S = 3.5
_WORKERS_FRESH_S = 10.0
_PING_S = 0.7


def _ask_workers() -> PartSeen:
    answered = celery.control.ping(timeout=_PING_S)
    if not answered:
        return PartSeen("failing", "no build worker answers")
    return PartSeen("passing", f"{len(answered)} answer" + ("s" if len(answered) == 1 else ""))


workers: Probe[PartSeen] = Probe(_ask_workers, lambda why: PartSeen(None, f"the broker cannot be asked: {why}"))


def observe() -> Mapping[str, PartSeen]:
    """Every part by the name that its service's check has."""
    asked: dict[str, Probe[Any]] = {
        "database": parts.database,
        "broker": parts.broker,
        "ingress": parts.ingress,
        "raft": parts.raft,
    }
    workers.begin(_WORKERS_FRESH_S)
    seen = ask_all(asked, _FRESH_S)
    found = {
        "database": _of_part(seen["database"].part),
        "broker": _of_part(seen["broker"]),
        "ingress": _of_part(seen["ingress"]),
        "workers": workers.answer(),
    }
    found |= {f"agent {node.name}": _agent(node) for node in seen["database"].nodes}
    found |= {f"raft {member['id']}": _member(member) for member in seen["raft"].get("members", ())}
    return found


def _of_part(part: parts.Part) -> PartSeen:
    if part["status"] == "up":
        return PartSeen("passing", "answers")
    return PartSeen("failing", str(part.get("detail", "down"))[:200])


def _agent(node: parts.NodeSeen) -> PartSeen:
    up = node.status in ("ready", "draining")
    return PartSeen("passing" if up else "failing", f"the node is {node.status}")


def _member(member: parts.Part) -> PartSeen:
    if member["reachable"]:
        return PartSeen("passing", "reachable")
    return PartSeen("failing", "the leader cannot reach it")

"""The parts that the platform stands on, each asked for real: database, broker, ingress, this member's agent, Raft.

Owns the questions. Each is bounded (`omni.kernel.probes`) and none needs another part: with the database down the rest
is still told. Serves `/health`, `/cluster/status`, and the leader's mirror into the replicated state.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.conf import settings
from django.db import connections

from consensus import fence, gate
from consensus.impatient import be_impatient
from consensus.lease import ConsensusUnavailable, Held
from consensus.raft.client import RaftClient
from instances.models import Node
from omni.kernel import clock, keys
from omni.kernel.config import Config
from omni.kernel.probes import Probe

Part = dict[str, Any]
Result = TypeVar("Result")
_BROKER_TIMEOUT_S = 0.8
_CONNECT_S = 0.3
_RAFT_S = 0.8


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node as the database has it."""

    name: str
    status: str
    draining: bool


@dataclass(frozen=True, slots=True)
class Database:
    """What the fence's row says, or why it cannot be read."""

    up: bool
    detail: str = ""
    latency_ms: float | None = None
    epoch: int | None = None
    write_index: int | None = None
    nodes: tuple[NodeSeen, ...] = ()

    @property
    def part(self) -> Part:
        if self.up:
            return {"status": "up", "latency_ms": self.latency_ms}
        return {"status": "down", "detail": self.detail}


class _Answered:
    """When the database last answered this process."""

    at: float = clock.monotonic()


def stale_s() -> int:
    """For how many seconds the database has not answered this process."""
    return int(clock.monotonic() - _Answered.at)


def _down(why: str) -> Part:
    return {"status": "down", "detail": why}


def read_database(ours: str) -> Database:
    """As the cluster `ours` sees it. Raises the database's errors."""
    begun = time.monotonic()
    epoch, index, theirs, _ = fence.read()
    latency = round((time.monotonic() - begun) * 1000, 2)
    if theirs not in ("", ours):
        return Database(False, str(fence.ForeignCluster(theirs, ours)))
    rows = Node.objects.order_by("name").values_list("name", "status", "draining")
    _Answered.at = clock.monotonic()
    return Database(True, "", latency, epoch, index, tuple(NodeSeen(*row) for row in rows))


def _with_own_connection(ask: Callable[[], Result]) -> Result:
    be_impatient()
    try:
        return ask()
    finally:
        connections.close_all()


def within(ask: Callable[[], Result], failed: Callable[[str], Result]) -> Result:
    """The answer of something that reads the database; `failed`'s when there is none within a second."""
    return Probe(lambda: _with_own_connection(ask), failed).ask()


def _ask_database() -> Database:
    return _with_own_connection(lambda: read_database(keys.cluster_id(settings.CONFIG)))


def _ask_broker() -> Part:
    from omni.broker import client

    begun = time.monotonic()
    with client(timeout_s=_BROKER_TIMEOUT_S) as broker:
        broker.ping()
    return {"status": "up", "latency_ms": round((time.monotonic() - begun) * 1000, 2)}


def _ask_ingress() -> Part:
    address, port = settings.CONFIG.ingress_address, settings.CONFIG.ingress.port
    return {"status": "up"} if listens(address, port) else _down(f"nothing listens on port {port}")


def _ask_raft() -> Part:
    """The Raft process's own status; empty with a single member, which runs none."""
    config: Config = settings.CONFIG
    if len(config.members) < 2:
        return {}
    client = RaftClient(config.socket_path(f"raft-{config.me.port}"))
    try:
        return client.status(_RAFT_S)
    finally:
        client.close()


database = Probe(_ask_database, lambda why: Database(False, why))
broker = Probe(_ask_broker, _down)
ingress = Probe(_ask_ingress, _down)
raft: Probe[Part] = Probe(_ask_raft, lambda why: {"unavailable": why})


def forget() -> None:
    """Ask anew next time (tests)."""
    for probe in (database, broker, ingress, raft):
        probe.forget()


def leadership(status: Part | None = None) -> tuple[str, str | None]:
    """(role, leader's `host:port`) by the lease page: no network, no database.

    With the Raft process's `status`, also who was elected and could not claim the fence yet (the database is away).
    """
    try:
        answer = gate.lease().current()
    except ConsensusUnavailable:
        role, leader = "unknown", None
    else:
        if isinstance(answer, Held):
            return "leader", settings.CONFIG.me.netloc
        role, leader = "follower", answer.leader
    status = status or {}
    return status.get("role", role), leader or status.get("leader")


def agent_part(seen: Database, replicated: Part) -> Part:
    """This member's agent as the leader hears it; from the replicated state when the database is away."""
    me = settings.CONFIG.me.id
    if not seen.up:
        last = replicated.get("services", {}).get(f"agent {me}")
        return {"status": "unknown", **({"last_known": last["state"]} if last else {})}
    status = next((node.status for node in seen.nodes if node.name == me), None)
    if status is None:
        return {"status": "unknown", "detail": "the agent of this member has not reported yet"}
    return {"status": "up" if status in ("ready", "draining") else "down", "node": status}


def listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=_CONNECT_S):
            return True
    except OSError:
        return False


def answers(netloc: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = netloc.rpartition(":")
    return listens(host.strip("[]"), int(port))

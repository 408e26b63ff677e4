"""What the leader copies into the replicated state, so that it can be read with the database down.

Owns which facts: who leads under which epoch, the nodes' drain flags, the health of the platform's own parts, and the
state of every service that is watched. Copies differences only; the database stays the truth. Must write nothing to it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from consensus.lease import ConsensusUnavailable, Held, Lease
from consensus.raft.client import CommandRefused, CommandUnknown, RaftClient
from omni.api import parts
from omni.kernel import clock
from omni.kernel.probes import Probe, ask_all
from services import standings

EVERY_S = 4.0  # each look asks every part; a claim is copied at once, by the first
SERVICES_A_TICK = 200  # more than so many changes of services are copied over several looks
_TIMEOUT_S = 2.0
_log = logging.getLogger("omni.daemon")
Command = dict[str, Any]


class Mirror:
    """One per leadership. `member` is ours."""

    def __init__(self, client: RaftClient, lease: Lease, member: str) -> None:
        self._client, self._lease, self._member = client, lease, member
        self._complaint = ""

    def tick(self) -> None:
        """Copy what differs. What cannot be copied now is copied later."""
        try:
            held = self._lease.current()
            if isinstance(held, Held):
                self._copy(held)
        except (ConsensusUnavailable, CommandUnknown, CommandRefused) as error:
            if str(error) != self._complaint:
                _log.warning("the replicated state lags: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = ""

    def _copy(self, held: Held) -> None:
        state = self._client.status(_TIMEOUT_S)["state"]
        now = str(clock.rfc3339(clock.now()))
        for command in self._claim(state, held, now):
            reply = self._client.submit(command, _TIMEOUT_S)
            if reply.get("code") == "old_epoch":  # a restored database counts from a lower epoch than this state knew
                self._client.submit({"op": "leader.restored", "v": 1}, _TIMEOUT_S)
                self._client.submit(command, _TIMEOUT_S)
        probes: dict[str, Probe[Any]] = {"database": parts.database, "broker": parts.broker, "ingress": parts.ingress}
        seen = ask_all(probes)
        for command in changes(state, seen["database"], {n: seen[n] for n in ("broker", "ingress")}, now):
            self._client.submit(command, _TIMEOUT_S)
        for command in of_services(state, standings.latest()):
            self._client.submit(command, _TIMEOUT_S)

    def _claim(self, state: dict[str, Any], held: Held, now: str) -> Iterator[Command]:
        leader = state["leader"]
        if (leader.get("epoch"), leader.get("claim_id")) != (held.epoch, held.claim_id):
            yield {
                "op": "leader.claimed",
                "v": 1,
                "member": self._member,
                "epoch": held.epoch,
                "claim_id": held.claim_id,
                "since": now,
            }


def changes(
    state: dict[str, Any], database: parts.Database, others: dict[str, parts.Part], now: str
) -> Iterator[Command]:
    """The commands that make `state` say what was seen. Pure. Without the database its nodes stay as they were."""
    wanted = {"database": database.part, **others}
    gone: set[str] = set()
    if database.up:
        agents = {f"agent {node.name}": _agent(node) for node in database.nodes}
        wanted |= agents
        gone = {name for name in state["services"] if name.startswith("agent ")} - set(agents)
        draining = {node.name for node in database.nodes if node.draining}
        for name in sorted(draining - set(state["drains"])):
            yield {"op": "drain.set", "v": 1, "node": name, "on": True, "since": now}
        for name in sorted(set(state["drains"]) - draining):
            yield {"op": "drain.set", "v": 1, "node": name, "on": False}
    for name, part in sorted(wanted.items()):
        known = state["services"].get(name, {})
        found = {"state": str(part["status"]), "detail": str(part.get("detail", ""))[:200]}
        if {key: known.get(key) for key in found} != found:
            since = known["since"] if known.get("state") == found["state"] else now
            yield {"op": "service.set", "v": 1, "name": name, "since": since, **found}
    for name in sorted(gone):
        yield {"op": "service.set", "v": 1, "name": name, "state": None}


def of_services(state: dict[str, Any], latest: Mapping[str, dict[str, str]] | None) -> list[Command]:
    """The commands that bring the services' states to `latest`, at most `SERVICES_A_TICK`. Pure."""
    if latest is None:
        return []
    known = {name: record for name, record in state["services"].items() if name.startswith(standings.PREFIX)}
    wanted = {standings.PREFIX + name: record for name, record in latest.items()}
    commands: list[Command] = []
    for name, record in wanted.items():
        before = known.get(name, {})
        if (before.get("state"), before.get("since")) != (record["state"], record["since"]):
            commands.append({"op": "service.set", "v": 1, "name": name, **record})
    commands += [{"op": "service.set", "v": 1, "name": name, "state": None} for name in known if name not in wanted]
    return commands[:SERVICES_A_TICK]


def _agent(node: parts.NodeSeen) -> parts.Part:
    return {"status": "up" if node.status in ("ready", "draining") else "down", "detail": node.status}

"""Which members a cluster has: from Raft's replicated state where it runs, else from the configuration.

Owns that one question for a backup. Must not ask the database.
"""

from __future__ import annotations

from typing import Any

from consensus.lease import ConsensusUnavailable
from consensus.raft.client import RaftClient
from omni.backup.manifest import MemberPart
from omni.kernel.config import Config


def replicated_state(config: Config) -> dict[str, Any]:
    """What the Raft process of some member on this host knows; empty when none answers."""
    for member in config.members_here:
        client = RaftClient(config.socket_path(f"raft-{member.port}"))
        try:
            return dict(client.status(timeout_s=1.0).get("state") or {})
        except ConsensusUnavailable:
            continue
        finally:
            client.close()
    return {}


def members(config: Config) -> list[MemberPart]:
    found = replicated_state(config).get("members") or {}
    if found:
        return [MemberPart(id=name, address=str(about.get("http", ""))) for name, about in sorted(found.items())]
    return [MemberPart(id=member.id, address=member.netloc) for member in config.members]

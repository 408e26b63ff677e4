"""How the cluster stands, asked in whatever way still answers.

Owns the order of asking: a member of this host by HTTP, else the Raft processes, the lease page and the database
directly. Nothing that is down keeps it waiting for more than a few seconds, and nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from consensus.lease import ConsensusUnavailable
from consensus.raft.client import RaftClient
from omni.api import parts
from omni.api.cluster import standing
from omni.kernel import secret_files
from omni.kernel.config import Config, Member
from omni.kernel.probes import ask_all
from omni.launch import http

_HTTP_S = 4.0
_RAFT_S = 1.0


@dataclass(frozen=True, slots=True)
class Status:
    """`source`: who was asked. `cluster` as `/cluster/status` answers, `parts` as `/health` does."""

    source: str
    cluster: dict[str, Any]
    parts: dict[str, Any]

    @property
    def takes_writes(self) -> bool:
        return bool(self.cluster.get("leader")) and self.parts.get("database", {}).get("status") == "up"

    def to_json(self) -> dict[str, Any]:
        return {**self.cluster, "parts": self.parts, "takes_writes": self.takes_writes, "source": self.source}


def look(config: Config) -> Status:
    for member in config.members_here:
        found = _by_http(config, member)
        if found is not None:
            return found
    return _directly(config)


def _by_http(config: Config, member: Member) -> Status | None:
    """As the member says; None when it does not answer, or not to this question."""
    headers = {"Authorization": f"Bearer {_token(config)}"}
    answer = http.call("GET", f"{member.url}/cluster/status", headers=headers, timeout_s=_HTTP_S)
    if answer.status != 200:
        return None
    health = http.call("GET", f"{member.url}/health", timeout_s=_HTTP_S).json()
    return Status(member.url, answer.json(), dict(health.get("parts") or {}))


def _token(config: Config) -> str:
    try:
        return secret_files.read(config.state / "admin.token")
    except (FileNotFoundError, secret_files.UnsafeSecretFile):
        return ""


def _directly(config: Config) -> Status:
    """No member of this host answers: what its Raft processes, its lease page and the database say."""
    seen = ask_all({"database": parts.database, "broker": parts.broker, "ingress": parts.ingress}, fresh_s=0.0)
    raft = _raft(config)
    cluster = standing(config, seen["database"], raft)
    if cluster["leader"] is None:
        cluster["leader"] = raft.get("leader")
    if not raft.get("members"):
        for member in cluster["members"]:  # `standing` believes that the member it runs in is up
            member["reachable"] = parts.answers(member["address"])
        cluster["quorum"]["reachable"] = sum(bool(member["reachable"]) for member in cluster["members"])
    shown = {
        "raft": {"status": "up" if raft.get("leader") else "down"},
        "database": seen["database"].part,
        "broker": seen["broker"],
        "ingress": seen["ingress"],
    }
    if len(config.members) < 2:
        shown["raft"]["status"] = "up" if cluster["leader"] else "down"
    return Status("this machine (no member here answers)", cluster, shown)


def _raft(config: Config) -> parts.Part:
    """What the first Raft process of this host that answers knows."""
    if len(config.members) < 2:
        return {}
    for member in config.members_here:
        client = RaftClient(config.socket_path(f"raft-{member.port}"))
        try:
            return client.status(_RAFT_S)
        except ConsensusUnavailable:
            continue
        finally:
            client.close()
    return {"unavailable": "no Raft process of this host answers"}


def lines(status: Status) -> list[str]:
    """For people."""
    cluster = status.cluster
    quorum = cluster.get("quorum") or {}
    members = cluster.get("members") or []
    found = [
        f"cluster      {cluster.get('cluster_id')}",
        f"leader       {cluster.get('leader') or 'nobody'}",
        f"epoch        {_shown(cluster.get('epoch'))}",
        f"write index  {_shown(cluster.get('write_index'))}",
        f"quorum       {quorum.get('reachable', '?')} of {len(members)} members reachable, "
        f"{len(members) // 2 + 1} needed",
        "parts        " + ", ".join(_part(name, part) for name, part in status.parts.items()),
        f"writes       {'are taken' if status.takes_writes else 'are NOT taken'}",
        f"asked        {status.source}",
        "",
    ]
    rows = [("member", "role", "reachable", "behind", "version", "last seen")]
    for member in members:
        rows.append(
            (
                str(member["id"]),
                str(member.get("role") or "unknown"),
                "yes" if member.get("reachable") else "no",
                _shown(member.get("match_lag")),
                _shown(member.get("version")),
                _shown(member.get("last_seen_at")),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return found + [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _part(name: str, part: dict[str, Any]) -> str:
    detail = f" ({part['detail']})" if part.get("detail") else ""
    return f"{name} {part.get('status', 'unknown')}{detail}"


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)

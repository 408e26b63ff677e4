"""What `RaftClient.status` answers: this member's view of the cluster, in one dictionary.

Owns its shape. The leader knows how far the others are; a follower knows what they told it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consensus.raft import machine
from omni.kernel import clock
from omni.version import VERSION

if TYPE_CHECKING:
    from consensus.raft.member import RaftMember


def of(member: RaftMember) -> dict[str, Any]:
    core = member.core
    voters = core.voters
    reachable = {core.me} | (member.links.connected() & set(voters))
    size = len(voters)
    leader = core.leader
    return {
        "member": core.me,
        "role": core.role,
        "term": core.term,
        "leader": machine.http_of(leader) if leader else None,
        "leader_id": leader,
        "established": core.established,
        "commit_index": core.commit_index,
        "applied_index": core.applied_index,
        "fresh": core.fresh,
        "voter": core.is_voter,
        "quorum": {"size": size // 2 + 1, "reachable": len(reachable), "has": 2 * len(reachable) > size},
        "members": [_member(member, id, address, id in reachable) for id, address in sorted(voters.items())],
        "state": core.state,
    }


def _lag(member: RaftMember, id: str, reachable: bool) -> int | None:
    """Entries behind the leader. The leader knows; a follower tells it from the last pings, None without one."""
    core, words = member.core, member.roster.words
    if core.role == "leader":
        return 0 if id == core.me else core.lag(id)
    applied = {peer: word.applied for peer, word in words.items()} | {core.me: core.applied_index}
    if not core.leader or not reachable or core.leader not in applied or id not in applied:
        return None
    return max(0, applied[core.leader] - applied[id])


def _member(member: RaftMember, id: str, address: str, reachable: bool) -> dict[str, Any]:
    core = member.core
    mine = id == core.me
    record = core.state["members"].get(id) or machine.member_record(id, address)
    word = member.roster.words.get(id)
    seen = clock.now() if mine else word.seen if word else None
    others = "leader" if id == core.leader else "follower" if reachable else "unknown"
    return {
        "id": id,
        "address": address,
        "http": machine.http_of(id),
        "role": core.role if mine else others,
        "reachable": reachable,
        "match_lag": _lag(member, id, reachable),
        "version": VERSION if mine else word.version if word else record["version"],
        "last_seen_at": clock.rfc3339(seen) or record["last_seen_at"],
        "able": member.roster.able() if mine else bool(word and reachable and word.able),
    }

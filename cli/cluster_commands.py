"""`omni cluster …`: who leads, and which members there are."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import click

from cli.errors import UNHEALTHY
from cli.session import Command, Group, Session

_HEADS = ("MEMBER", "ADDRESS", "ROLE", "REACHABLE", "LAG", "VERSION", "LAST SEEN")
_KEYS = ("id", "address", "role", "reachable", "match_lag", "version", "last_seen_at")


@click.group(cls=Group)
def cluster() -> None:
    """Show the members, hand the leadership over, add and remove members."""


@cluster.command(cls=Command)
@click.pass_obj
def status(session: Session) -> None:
    """Show leader, quorum and members. Exit code 3 without a leader or a quorum."""
    answer = session.api.get("/cluster/status")
    found: dict[str, Any] = answer.body
    healthy = bool(found.get("leader")) and bool((found.get("quorum") or {}).get("has", True))
    if not session.out.answer({"healthy": healthy, **found}):
        quorum = found.get("quorum") or {}
        session.out.facts(
            [
                ("cluster", found.get("cluster_id")),
                ("leader", found.get("leader") or session.out.paint("none", "red")),
                ("asked", found.get("node")),
                ("term, epoch", f"{found.get('term')}, {found.get('epoch')}"),
                ("write index", found.get("write_index")),
                ("quorum", f"{quorum.get('reachable')} reachable, {quorum.get('size')} needed"),
                ("database", (found.get("database") or {}).get("status")),
                ("draining", ", ".join(found.get("drains") or {}) or "no node"),
            ]
        )
        session.out.say("")
        session.out.table(_HEADS, [[member.get(key) for key in _KEYS] for member in found["members"]])
    if not healthy:
        click.get_current_context().exit(UNHEALTHY)


@cluster.command(cls=Command)
@click.option("--to", metavar="MEMBER", help="Who is to lead, by member id (default: any that is fit).")
@click.pass_obj
def transfer(session: Session, to: str | None) -> None:
    """Hand the leadership over without an election's pause."""
    found = session.api.call("POST", "/cluster/transfer", {"to": to} if to else {}).body
    if not session.out.answer(found):
        session.out.say(f"{found['leader']} leads (before: {found['former']})")


@cluster.command(cls=Command)
@click.argument("address")
@click.argument("port", type=click.IntRange(1, 65_535))
@click.pass_obj
def add(session: Session, address: str, port: int) -> None:
    """Add the member that will run at ADDRESS PORT; then start it there."""
    found = session.api.call("POST", "/cluster/members", {"address": address, "port": port}).body
    if not session.out.answer(found):
        session.out.say(f"{found['id']} is a member; start it at {found['address']} with the same cluster secret")


@cluster.command(cls=Command)
@click.argument("member")
@click.pass_obj
def remove(session: Session, member: str) -> None:
    """Remove MEMBER (an id). A leader hands its leadership over first; drain its node before, if it has one."""
    session.api.call("DELETE", f"/cluster/members/{quote(member, safe='')}")
    if not session.out.answer({"removed": member}):
        session.out.say(f"{member} is no member any more")

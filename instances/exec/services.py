"""The verbs of sessions: ask for one, come with its ticket, tell how it goes. Each runs inside the gate.

Start and end are events with the command and who asked; what is said in between is nobody's business here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from agent.protocol import SessionSeen
from apps.models import App
from consensus.gate import Transaction
from instances.exec.models import ExecSession
from instances.exec.states import AGENT, LEADER, LISTED, LIVE, MEMBER, SESSION, SessionStatus
from instances.models import Instance
from instances.states import InstanceStatus
from omni.kernel.config import Config
from omni.kernel.config_members import bracketed
from omni.kernel.errors import Conflict, NotFound, TransitionRefused
from omni.kernel.transitions import move

TICKET_S = 30.0  # for coming with the ticket
AGENT_S = 30.0  # for the node's agent
_GRACE_S = 60.0  # beyond `max_s`, which the agent sees to
_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    argv: list[str]
    tty: bool = False
    columns: int = 80
    rows: int = 24
    max_s: float | None = None  # None: as long as the platform allows


def create(tx: Transaction, app: App, instance: Instance, wanted: Wanted) -> tuple[ExecSession, str]:
    """A session and the ticket that opens it once. Raises Conflict."""
    if instance.status != InstanceStatus.RUNNING or instance.node is None:
        raise Conflict(
            f"The instance is {instance.status}; commands run in a running one.", code="instance_not_running",
            next=f"GET /app/{app.pk}/instances?status=running",
        )  # fmt: skip
    if place := instance.handle.get("place"):
        raise Conflict(
            f"The instance runs on {place}, a node of the swarm that has no agent of its own there; commands run where "
            f"the task is on the engine of {instance.node.name}.", code="instance_elsewhere",
            next=f"docker exec on {place}, or GET /app/{app.pk}/instances for one whose `handle` names no `place`",
        )  # fmt: skip
    limits, timings = settings.CONFIG.limits, settings.CONFIG.timings
    node = instance.node.name
    if ExecSession.objects.filter(node_name=node, status__in=LIVE).count() >= limits.exec_sessions:
        raise Conflict(f"{limits.exec_sessions} sessions are open on {node}, which is the most.",
                       code="too_many_sessions", next="end one of them")  # fmt: skip
    ticket = secrets.token_urlsafe(32)
    row = ExecSession(
        app=app, instance_number=instance.pk, node_name=node, argv=wanted.argv, tty=wanted.tty, columns=wanted.columns,
        rows=wanted.rows, ticket_hash=_digest(ticket), idle_s=timings.exec_idle_s,
        max_s=min(wanted.max_s or timings.exec_max_s, timings.exec_max_s),
        end_by=tx.at + dt.timedelta(seconds=TICKET_S), created_by=tx.actor.label, created_at=tx.at,
    )  # fmt: skip
    row.save(force_insert=True)
    _record(tx, row, app.org_id, "exec.created", {})
    return row, ticket


def attach(tx: Transaction, session_id: int, ticket: str, member: str) -> ExecSession:
    """Somebody is at that member with the ticket, which is good for nothing from now on. Raises NotFound, Conflict."""
    row = ExecSession.objects.select_related("app").filter(pk=session_id).first()
    if row is None or not hmac.compare_digest(row.ticket_hash, _digest(ticket)):
        raise NotFound("There is no such session.")
    if row.end_by <= tx.at:
        raise _used()
    end_by = tx.at + dt.timedelta(seconds=AGENT_S)
    try:
        move(ExecSession, row.pk, table=SESSION, to=SessionStatus.ATTACHED, owner=MEMBER, member=member, end_by=end_by)
    except TransitionRefused as refused:
        raise _used() from refused
    _record(tx, row, row.app.org_id, "exec.attached", {"member": member})
    return row


def of_node(node: str) -> list[dict[str, Any]]:
    """What the node's agent is to run or goes on running, as `agent.protocol.SessionOrder` says it."""
    rows = ExecSession.objects.filter(node_name=node, status__in=LISTED).order_by("id")
    return [
        {"id": row.pk, "instance_id": row.instance_number, "argv": row.argv, "urls": _urls(settings.CONFIG, row.member),
         "tty": row.tty, "columns": row.columns, "rows": row.rows, "idle_s": row.idle_s, "max_s": row.max_s,
         "running": row.status == SessionStatus.RUNNING}
        for row in rows
    ]  # fmt: skip


def expected(session_id: int, node: str, member: str) -> bool:
    """Whether that node's agent is to come to that member for this session."""
    rows = ExecSession.objects.filter(pk=session_id, node_name=node, member=member, status=SessionStatus.ATTACHED)
    return rows.exists()


def reported(tx: Transaction, node: str, seen: Sequence[SessionSeen]) -> None:
    """What a node's agent says of its sessions; what is late or another's changes nothing."""
    by_id = {entry.id: entry for entry in seen}
    rows = ExecSession.objects.select_related("app").filter(pk__in=by_id, node_name=node, status__in=LISTED)
    for row in rows.order_by("id"):
        entry = by_id[row.pk]
        if entry.ended:
            _finish(tx, row, SessionStatus.ENDED, AGENT, entry.reason, entry.detail, entry.code)
        elif row.status == SessionStatus.ATTACHED:
            end_by = tx.at + dt.timedelta(seconds=row.max_s + _GRACE_S)
            move(ExecSession, row.pk, table=SESSION, to=SessionStatus.RUNNING, owner=AGENT,
                 started_at=tx.at, end_by=end_by)  # fmt: skip
            _record(tx, row, row.app.org_id, "exec.started", {})


def give_up(tx: Transaction, row: ExecSession, reason: str) -> None:
    """The leader's word that it is over. Raises TransitionRefused."""
    to = SessionStatus.EXPIRED if row.status == SessionStatus.OPEN else SessionStatus.LOST
    _finish(tx, row, to, LEADER, reason, "", None)


def _finish(tx: Transaction, row: ExecSession, to: str, owner: str, reason: str, detail: str, code: int | None) -> None:
    move(ExecSession, row.pk, table=SESSION, to=to, owner=owner, source=row.status,
         ended_at=tx.at, reason=reason[:32], detail=detail[:300], exit_code=code)  # fmt: skip
    took = round((tx.at - row.started_at).total_seconds(), 3) if row.started_at is not None else None
    _record(tx, row, row.app.org_id, "exec.ended", {"duration_s": took, "exit_code": code, "reason": reason[:32]})


def _record(tx: Transaction, row: ExecSession, org_id: int, kind: str, change: dict[str, Any]) -> None:
    shown = {"instance": row.instance_number, "command": " ".join(row.argv)[:_SHOWN], "by": row.created_by, **change}
    tx.record(kind, "exec", row.pk, org_id=org_id, app_id=row.app_id, change=shown)


def _used() -> Conflict:
    return Conflict("The ticket was used, or is too old.", code="ticket_used",
                    next="POST /app/<app>/instances/<id>/exec for a new one")  # fmt: skip


def _urls(config: Config, member_id: str) -> list[str]:
    """As its neighbours and as other hosts reach the member; none when it is no member any more."""
    for member in config.members:
        if member.id == member_id:
            return [member.url, f"https://{bracketed(member.address)}:{config.member_port(member)}"]
    return []


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()

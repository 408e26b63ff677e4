"""`/cluster/*`: who leads, who the members are, and changing both.

Owns the view of the cluster that answers with the database down too: from the lease page, the Raft process, and the
replicated state. A change is recorded as an event first and then made by Raft, which is harmless to repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.access import recheck
from consensus.gate import Transaction
from consensus.lease import ConsensusUnavailable
from consensus.raft.client import CommandRefused, CommandUnknown, RaftClient
from consensus.raft.machine import http_of
from omni.api import parts
from omni.api.degraded import DegradedAuthentication
from omni.api.schemas_cluster import ClusterStatus, MemberAdded, MemberList, Transferred
from omni.kernel import keys
from omni.kernel.config import Config, Member
from omni.kernel.config_members import bracketed
from omni.kernel.errors import Conflict, FieldError, InvalidInput, NoLeader, NotFound, NotLeader, OutcomeUnknown
from omni.kernel.probes import ask_all
from omni.rest import index
from omni.rest.fields import StrictSerializer
from omni.rest.writes import Reply, is_dry_run, no_body, perform
from omni.version import VERSION
from services.outage import RECORD as ALARM

_ADDRESS = r"\A[A-Za-z0-9:._-]{1,253}\Z"
_TRANSFER_S, _MEMBER_S = 5.0, 10.0
_SCOPE = "platform:write"


class TransferInput(StrictSerializer):
    to = serializers.CharField(max_length=300, required=False, allow_null=True, help_text="member id; default: any")


class MemberInput(StrictSerializer):
    address = serializers.RegexField(_ADDRESS, max_length=253, help_text="as the other members reach it")
    port = serializers.IntegerField(min_value=1, max_value=65_535, help_text="its HTTP port")


class ClusterViewSet(ViewSet):
    scopes = {
        "status": "platform:read",
        "members": "platform:read",
        "transfer": _SCOPE,
        "add_member": _SCOPE,
        "remove_member": _SCOPE,
    }

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Set here because the OpenAPI document is to show the one scheme that all views have."""
        asked = super().initialize_request(request, *args, **kwargs)
        asked.authenticators = [DegradedAuthentication()]
        return asked

    @extend_schema(operation_id="cluster_status", responses={200: ClusterStatus})
    def status(self, request: Request) -> Response:
        seen = ask_all({"database": parts.database, "raft": parts.raft}, fresh_s=0.0)
        body = standing(settings.CONFIG, seen["database"], seen["raft"])
        return Response(body, headers=freshness(seen["database"], body["write_index"]))

    @extend_schema(operation_id="cluster_members", responses={200: MemberList})
    def members(self, request: Request) -> Response:
        seen = ask_all({"database": parts.database, "raft": parts.raft}, fresh_s=0.0)
        body = standing(settings.CONFIG, seen["database"], seen["raft"])
        shown = {"items": body["members"], "next": None, "previous": None}
        return Response(shown, headers=freshness(seen["database"], body["write_index"]))

    @extend_schema(operation_id="cluster_transfer", request=TransferInput, responses={200: Transferred})
    def transfer(self, request: Request) -> Response:
        to = _valid(TransferInput, request).get("to")
        _need_raft("the leadership has nowhere to go")
        me: Member = settings.CONFIG.me
        members = [] if to in (None, me.id) else _member_ids()

        def check() -> None:
            if to not in (None, me.id) and to not in members:
                raise InvalidInput(errors=[FieldError("/to", "no_member", f"The members are {', '.join(members)}.")])

        recorded, asked = _record(request, "cluster.transfer_requested", {"from": me.id, "to": to}, check)
        if is_dry_run(request):
            return recorded
        leader = me.netloc
        if asked["from"] == me.id and to != me.id:  # else it has moved since: this is the answer again
            leader = _by_raft(lambda client: client.transfer(to, _TRANSFER_S))
        former = http_of(asked["from"])
        return Response({"leader": leader, "former": former, "to": to}, headers=_headers(recorded))

    @extend_schema(operation_id="cluster_member_add", request=MemberInput, responses={200: MemberAdded})
    def add_member(self, request: Request) -> Response:
        given = _valid(MemberInput, request)
        _need_raft("start it again with all its nodes in `instances`")
        member, raft_port = Member(given["port"], given["address"]), settings.CONFIG.raft_port_offset + given["port"]
        if raft_port > 65_535:
            raise InvalidInput(errors=[FieldError("/port", "invalid", f"Its Raft port would be {raft_port}.")])
        recorded, _ = _record(request, "cluster.member_add_requested", {"member": member.id})
        if is_dry_run(request):
            return recorded
        at = f"{bracketed(member.address)}:{raft_port}"
        _by_raft(lambda client: client.add_member(member.id, at, _MEMBER_S))
        return Response({"id": member.id, "address": member.netloc}, headers=_headers(recorded))

    @extend_schema(operation_id="cluster_member_remove", request=None, responses={204: None})
    def remove_member(self, request: Request, member: str) -> Response:
        no_body(request)
        _need_raft("it has no other member")
        members = _member_ids()

        def check() -> None:
            if member not in members:
                raise NotFound(f"There is no member {member}.", next="GET /cluster/members")
            if len(members) == 1:
                raise Conflict("The last member cannot be removed.", code="last_member")

        if member == settings.CONFIG.me.id and len(members) > 1 and not is_dry_run(request):
            # A leader that is to go hands over and has the next one remove it: our front sends the request on.
            leader = _by_raft(lambda client: client.transfer(None, _TRANSFER_S))
            raise NotLeader(leader)
        recorded, _ = _record(request, "cluster.member_remove_requested", {"member": member}, check)
        if is_dry_run(request):
            return recorded
        _by_raft(lambda client: client.remove_member(member, _MEMBER_S))
        return Response(status=204, headers=_headers(recorded))


def standing(config: Config, seen: parts.Database, raft: parts.Part) -> dict[str, Any]:
    """The cluster as this member knows it; `epoch` and `write_index` are the last known ones with the database away."""
    role, leader = parts.leadership(raft)
    state = raft.get("state", {})
    members = _by_status(raft, leader) if raft.get("members") else _by_configuration(config, leader)
    return {
        "cluster_id": keys.cluster_id(config),
        "node": config.me.id,
        "role": role,
        "leader": leader,
        "term": raft.get("term"),
        "epoch": seen.epoch if seen.up else state.get("leader", {}).get("epoch"),
        "write_index": seen.write_index if seen.up else index.seen(0) or None,
        "quorum": _quorum(config, raft, members),
        "members": members,
        "database": seen.part,
        "drains": state.get("drains", {}),
        "services": {name: one for name, one in state.get("services", {}).items() if name != ALARM},
    }


def freshness(seen: parts.Database, write_index: int | None) -> dict[str, str]:
    """The headers of a read that may be served without the database."""
    headers = {"Omni-Index": str(write_index or 0), "Cache-Control": "no-store"}
    return headers if seen.up else {**headers, "Omni-Stale": str(parts.stale_s())}


def _quorum(config: Config, raft: parts.Part, members: list[dict[str, Any]]) -> dict[str, Any]:
    if "quorum" in raft:
        return {"mode": "raft", **raft["quorum"]}
    reachable = sum(1 for member in members if member["reachable"])
    if len(config.members) < 2:
        return {"mode": "static", "size": 1, "reachable": 1, "has": True}
    return {"mode": "raft", "size": len(members), "reachable": reachable, "has": False}


def _by_status(raft: parts.Part, leader: str | None) -> list[dict[str, Any]]:
    return [
        {
            "id": member["id"],
            "address": member["http"],
            "role": "leader" if member["http"] == leader else ("follower" if member["reachable"] else "unknown"),
            "reachable": member["reachable"],
            "match_lag": member["match_lag"],
            "version": member["version"] or None,
            "last_seen_at": member["last_seen_at"],
            "able": member.get("able"),
        }
        for member in raft["members"]
    ]


def _by_configuration(config: Config, leader: str | None) -> list[dict[str, Any]]:
    """A single member, or one whose Raft process does not answer: what config.json says."""
    alone = len(config.members) < 2
    return [
        {
            "id": member.id,
            "address": member.netloc,
            "role": "leader" if member.netloc == leader else ("follower" if leader else "unknown"),
            "reachable": member == config.me or parts.answers(member.netloc),
            "match_lag": 0 if alone else None,
            "version": VERSION if member == config.me else None,
            "last_seen_at": None,
            "able": None,
        }
        for member in config.members
    ]


def _valid(kind: type[StrictSerializer], request: Request) -> dict[str, Any]:
    given = kind(data=request.data or {})
    given.is_valid(raise_exception=True)
    return dict(given.validated_data)


def _need_raft(why: str) -> None:
    if len(settings.CONFIG.members) < 2:
        raise Conflict(f"This cluster has one member: {why}.", code="single_member", next="GET /cluster/status")


def _member_ids() -> list[str]:
    status: dict[str, Any] = _by_raft(lambda client: client.status())
    return [member["id"] for member in status["members"]]


def _record(
    request: Request, kind: str, change: dict[str, Any], check: Callable[[], None] = lambda: None
) -> tuple[Response, dict[str, Any]]:
    """The event before the effect (DECISIONS 6), and what it says: under an Idempotency-Key what it said at first.

    `check` refuses; a repeated request is not checked again, for its own effect may have changed the answer.
    """

    def verb(tx: Transaction) -> Reply:
        recheck(tx.actor, _SCOPE)
        check()
        tx.record(kind, "cluster", 0, change=change)
        return Reply(change, 202)

    recorded = perform(request, verb)
    asked: dict[str, Any] = change if is_dry_run(request) else orjson.loads(recorded.data)
    return recorded, asked


def _headers(recorded: Response) -> dict[str, str]:
    return {name: value for name, value in recorded.items() if name.startswith("Omni-")}


def _by_raft(ask: Callable[[RaftClient], Any]) -> Any:
    """Through this member's Raft process, as a problem when it cannot. Raises NoLeader, Conflict, OutcomeUnknown."""
    config: Config = settings.CONFIG
    client = RaftClient(config.socket_path(f"raft-{config.me.port}"))
    try:
        return ask(client)
    except CommandRefused as refused:
        detail = f"{refused} ({refused.code})"
        raise Conflict(detail, code="raft_refused", next="GET /cluster/status") from refused
    except CommandUnknown as unknown:
        raise OutcomeUnknown(str(unknown)) from unknown
    except ConsensusUnavailable as unavailable:
        raise NoLeader(str(unavailable)) from unavailable
    finally:
        client.close()

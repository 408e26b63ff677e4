"""The shapes of `/health*` and `/cluster/*` for the OpenAPI document. No logic."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

_ROLES = ("leader", "follower", "candidate", "unknown")


class MemberShown(serializers.Serializer[Any]):
    id = serializers.CharField()
    address = serializers.CharField(help_text="`<host>:<HTTP port>`")
    role = serializers.ChoiceField(_ROLES)
    reachable = serializers.BooleanField()
    match_lag = serializers.IntegerField(
        allow_null=True, help_text="Raft entries behind the leader, as of the last ping; null: not known"
    )
    version = serializers.CharField(allow_null=True)
    last_seen_at = serializers.DateTimeField(allow_null=True)
    able = serializers.BooleanField(allow_null=True, help_text="whether it could lead: its database answers")


class MemberList(serializers.Serializer[Any]):
    items = MemberShown(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class Quorum(serializers.Serializer[Any]):
    mode = serializers.ChoiceField(("raft", "static"))
    size = serializers.IntegerField()
    reachable = serializers.IntegerField()
    has = serializers.BooleanField()


class ClusterStatus(serializers.Serializer[Any]):
    """What this member knows; with the database down the last known figures, and the header `Omni-Stale`."""

    cluster_id = serializers.CharField()
    node = serializers.CharField()
    role = serializers.ChoiceField(_ROLES)
    leader = serializers.CharField(allow_null=True)
    term = serializers.IntegerField(allow_null=True)
    epoch = serializers.IntegerField(allow_null=True)
    write_index = serializers.IntegerField(allow_null=True)
    quorum = Quorum()
    members = MemberShown(many=True)
    database = serializers.DictField()
    drains = serializers.DictField(help_text="nodes that are being drained")
    services = serializers.DictField(help_text="the platform's own parts as the leader sees them")


class Transferred(serializers.Serializer[Any]):
    leader = serializers.CharField(help_text="who leads now")
    former = serializers.CharField()
    to = serializers.CharField(allow_null=True, help_text="who was asked for")


class MemberAdded(serializers.Serializer[Any]):
    id = serializers.CharField()
    address = serializers.CharField()


class Health(serializers.Serializer[Any]):
    status = serializers.ChoiceField(("healthy", "degraded", "down"))
    node = serializers.CharField()
    version = serializers.CharField()
    parts = serializers.DictField(help_text="raft, database, broker, agent, ingress: each with `status`")


class Readiness(serializers.Serializer[Any]):
    status = serializers.ChoiceField(("ready", "not_ready"))
    database = serializers.CharField()
    leader = serializers.CharField(allow_null=True)
    why = serializers.CharField(required=False)

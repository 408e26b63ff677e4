"""An instance that leaves: no new requests, then no open ones, then SIGTERM.

Owns which instances leave, what each ingress has said about them, and what their agents are told of it. An ingress that
is lost with its node is waited for no longer; without any ingress the time alone counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.models import F, Q

from apps.processes import WEB
from consensus.gate import Transaction
from instances.models import Instance, Node
from instances.nodes import ALIVE
from instances.states import InstanceStatus

_LEAVING = (InstanceStatus.RUNNING, InstanceStatus.STOPPING)
_MOST = 1000


def leaves(row: Mapping[str, Any]) -> bool:
    """Whether it is to end or to be restarted in place. `observed_generation` may be missing: then only the end."""
    return bool(row["desired"] != "run" or row["generation"] > row.get("observed_generation", row["generation"]))


def mark(desired: str, generation: int) -> str:
    """What an instance is drained for; a restart later is another leaving than this one."""
    return f"{'stop' if desired != 'run' else 'restart'}:{generation}"


def ingresses() -> frozenset[str]:
    """The nodes whose ingress has to be heard."""
    return frozenset(Node.objects.filter(ingress=True, status__in=ALIVE).values_list("name", flat=True))


def leaving() -> list[int]:
    """The instances that ingresses are asked about; ascending."""
    rows = Instance.objects.filter(
        Q(desired="stop") | Q(generation__gt=F("observed_generation")),
        status__in=_LEAVING, on_node=True, healthy_at__isnull=False, process_type=WEB,
    )  # fmt: skip
    return list(rows.order_by("id").values_list("id", flat=True)[:_MOST])


def terms(row: Mapping[str, Any], ingress_nodes: frozenset[str]) -> dict[str, Any]:
    """The drain's part of an assignment."""
    times = settings.CONFIG.timings
    if row["process_type"] != WEB:  # no ingress has it
        return {"drain_s": 0.0, "drain_max_s": 0.0, "drained": True}
    if not leaves(row) or not ingress_nodes:
        longest = times.drain_s if not leaves(row) else times.route_drain_s
        return {"drain_s": times.route_drain_s, "drain_max_s": longest, "drained": False}
    wanted = mark(row["desired"], row["generation"])
    done = all(row["drained_by"].get(node) == wanted for node in ingress_nodes)
    return {"drain_s": times.route_drain_s, "drain_max_s": max(times.drain_s, times.route_drain_s), "drained": done}


def drained(tx: Transaction, node: str, instances: Sequence[int]) -> int:
    """An ingress has no open request at these any more. Repeating it changes nothing; returns how many were news."""
    rows = Instance.objects.filter(pk__in=list(instances)[:_MOST], on_node=True, status__in=_LEAVING)
    news = 0
    for row in rows.select_related("app").order_by("id"):
        if row.desired == "run" and row.generation <= row.observed_generation:
            continue
        wanted = mark(row.desired, row.generation)
        if row.drained_by.get(node) == wanted:
            continue
        told = {**row.drained_by, node: wanted}
        changed = Instance.objects.filter(pk=row.pk, revision=row.revision)
        if changed.update(drained_by=told, revision=F("revision") + 1) == 1:
            news += 1
            tx.record("instance.drained", "instance", row.pk, org_id=row.app.org_id, app_id=row.app_id,
                      change={"ingress": node})  # fmt: skip
    return news

"""What an agent reports becomes rows: the only writer of the observed columns.

Owns the order of reports (an older (incarnation, sequence) changes nothing), the mapping from `agent.protocol` to
columns, and what is an event. Runs inside the gate, once per report, however many instances are in it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from django.db.models import F

from agent.protocol import NodeFacts, Observed, Report
from apps.models import App
from consensus.gate import Transaction
from instances import evidence, nodes
from instances.exec import services as sessions
from instances.models import Instance, Node
from instances.states import AGENT, ENDED, INSTANCE, InstanceStatus
from instances.volumes import services as volumes
from instances.volumes.snapshots import jobs as volume_jobs
from omni.kernel.errors import Conflict, TransitionRefused
from omni.kernel.transitions import move

_LINES_KEPT = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    known: list[int]
    unknown: list[int]
    want_facts: bool


def receive(tx: Transaction, report: Report, address: str) -> Received:
    """Take in one report of a node that belongs here. Raises Conflict for one of an earlier agent process."""
    node = nodes.register(tx, report.node, address)
    if report.incarnation < node.incarnation:
        raise Conflict("A newer process of this agent has reported.", code="stale_incarnation")
    want_facts = _take_facts(tx, node, report)
    known, unknown = _take_instances(tx, node, report)
    if report.gone:
        _take_gone(tx, node, report.gone)
    if report.volumes:
        volumes.reported(tx, node.name, report.volumes)
    if report.volume_jobs:
        volume_jobs.reported(tx, node.name, report.volume_jobs)
    if report.sessions:
        sessions.reported(tx, node.name, report.sessions)
    return Received(known, unknown, want_facts)


def _take_facts(tx: Transaction, node: Node, report: Report) -> bool:
    """Whether the agent should send its facts: those of this process are not known yet."""
    fields: dict[str, Any] = {}
    if report.facts is not None:
        fields |= _facts(report.facts)
    if report.ingress is not None and report.ingress != node.ingress:
        fields["ingress"] = report.ingress
    if report.facts is not None and report.incarnation != node.incarnation:
        fields["incarnation"] = report.incarnation
    changed = {name: value for name, value in fields.items() if getattr(node, name) != value}
    if changed:
        nodes.touch(node, **changed)
        tx.record("node.reported", "node", node.pk, change={"name": node.name, "fields": sorted(changed)})
    if report.facts is not None:
        nodes.make_ready(tx, node)
    return report.facts is None and report.incarnation != node.incarnation


def _facts(facts: NodeFacts) -> dict[str, Any]:
    shown = dataclasses.asdict(facts)
    shown["port_range"] = list(facts.port_range)
    return {
        "facts": shown,
        "address": facts.address,
        "labels": facts.labels,
        "cpu_count": facts.cpu_count,
        "memory_mb": facts.memory_mb,
    }


def _take_instances(tx: Transaction, node: Node, report: Report) -> tuple[list[int], list[int]]:
    seen = {observed.id: observed for observed in report.instances}
    rows = Instance.objects.select_for_update().filter(pk__in=seen, node=node).order_by("id")
    mine = {row.pk: row for row in rows}  # no join: it would lock the apps too
    orgs = dict(App.objects.filter(pk__in={row.app_id for row in mine.values()}).values_list("pk", "org_id"))
    for instance_id, row in mine.items():
        _take(tx, row, seen[instance_id], report.incarnation, orgs.get(row.app_id))
    return sorted(mine), sorted(seen.keys() - mine.keys())


def _take(tx: Transaction, row: Instance, seen: Observed, incarnation: int, org_id: int | None) -> None:
    if row.status in ENDED:
        return  # lost, stopped or failed: nothing that comes later changes that
    if (incarnation, seen.seq) <= (row.observed_incarnation, row.observed_seq):
        return  # late or repeated
    fields = _columns(tx, row, seen) | {"observed_seq": seen.seq, "observed_incarnation": incarnation}
    try:
        if seen.status == row.status:
            Instance.objects.filter(pk=row.pk, status=row.status).update(revision=F("revision") + 1, **fields)
        else:
            move(Instance, row.pk, table=INSTANCE, to=seen.status, owner=AGENT, source=row.status, **fields)
    except TransitionRefused:
        return  # the leader decided otherwise in the meantime; the agent hears of it with its assignments
    _record(tx, row, seen, org_id)


def _columns(tx: Transaction, row: Instance, seen: Observed) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "health": seen.health,
        "restarts": seen.restarts,
        "observed_generation": seen.generation,
        "address": (seen.address or "")[:80],
        "handle": seen.handle,
        "last_exit": _exit(seen),
        "last_probe": dataclasses.asdict(seen.last_probe) if seen.last_probe else None,
        "detail": seen.detail[:500],
        "started_at": _time(seen.started_at),
        "next_start_at": _time(seen.next_start_at),
    }
    fields |= _standing(tx, row, seen)
    if seen.status in ENDED:
        fields["finished_at"] = tx.at
        if row.desired == "stop":
            fields["desired"] = "remove"  # as asked: nobody has to look at it again
    if (seen.status, seen.health, seen.restarts) != (row.status, row.health, row.restarts):
        fields["history"] = evidence.appended(
            row.history, tx.at, seen.status, seen.health, seen.detail, seen.restarts
        )  # fmt: skip
    return fields


def _standing(tx: Transaction, row: Instance, seen: Observed) -> dict[str, Any]:
    """How it has kept: since when this process is healthy, and how often one has ended by itself after it had been."""
    fields: dict[str, Any] = {}
    if row.healthy_at is None and seen.health == "healthy":
        fields["healthy_at"] = tx.at
    healthy = (seen.status, seen.health) == ("running", "healthy")
    if not healthy:
        fields["healthy_since"] = None
    elif row.healthy_since is None or seen.restarts != row.restarts:
        fields["healthy_since"] = tx.at
    if seen.crashes != row.crashes:
        fields["crashes"] = seen.crashes
    return fields


def _exit(seen: Observed) -> dict[str, Any] | None:
    if seen.last_exit is None:
        return None
    shown = dataclasses.asdict(seen.last_exit)
    shown["lines"] = [str(line)[:2000] for line in seen.last_exit.lines[-_LINES_KEPT:]]
    return shown


def _record(tx: Transaction, row: Instance, seen: Observed, org_id: int | None) -> None:
    if seen.status != row.status:
        kind, change = f"instance.{seen.status}", {"status": [row.status, seen.status]}
        if seen.status in (InstanceStatus.CRASHED, InstanceStatus.FAILED):
            change["why"] = [seen.detail[:200]]
    elif seen.health != row.health:
        kind, change = "instance.health_changed", {}
    else:
        kind, change = "instance.reported", {}
    if seen.health != row.health:
        change["health"] = [row.health, seen.health]
    if seen.restarts != row.restarts:
        change["restarts"] = [str(row.restarts), str(seen.restarts)]
    tx.record(kind, "instance", row.pk, org_id=org_id, app_id=row.app_id, change=change)


def _take_gone(tx: Transaction, node: Node, gone: list[int]) -> None:
    """Their directories are removed: they leave the node's list."""
    rows = Instance.objects.filter(pk__in=gone, node=node, on_node=True, status__in=ENDED)
    ids = list(rows.values_list("pk", flat=True))
    if ids:
        Instance.objects.filter(pk__in=ids).update(on_node=False, revision=F("revision") + 1)
        tx.record("instances.removed_from_node", "node", node.pk, change={"name": node.name, "instances": ids[:500]})


def _time(text: str | None) -> dt.datetime | None:
    """A time as an agent wrote it; None for none, and for one that cannot be read."""
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)

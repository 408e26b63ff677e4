"""Nodes coming, going and coming back: the leader's verdicts from heartbeats, and their effect on what ran there.

Owns `judge` (pure: who is lost, who is back, when to hold) and the verbs that write the verdicts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django.db.models import F, QuerySet

from consensus.gate import Transaction
from instances import evidence
from instances.models import Instance, Node
from instances.states import INSTANCE, LEADER, NODE, ON_NODE, InstanceStatus, NodeStatus
from omni.kernel.errors import TransitionRefused
from omni.kernel.transitions import move

ALIVE = frozenset({NodeStatus.READY, NodeStatus.DRAINING})
BATCH = 500  # instances declared lost in one transaction


@dataclass(frozen=True, slots=True)
class Beat:
    """A node as the leader's clock sees it: `age_s` since its last heartbeat, at most since it was given a lease."""

    node_id: int
    name: str
    status: str
    age_s: float
    heard: bool  # since this leader began
    member: bool = True  # of this configuration; nobody else's report is taken


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`held`: too many fell silent at once for that to be believed; nobody is declared lost."""

    lost: tuple[Beat, ...] = ()
    back: tuple[Beat, ...] = ()
    held: tuple[Beat, ...] = ()


def judge(beats: list[Beat], lease_s: float, suspect_s: float | None = None) -> Verdicts:
    """More than half of the live nodes (and more than one) silent at once: hold and alert (DECISIONS 13).

    Heartbeats come at different moments, so nodes that fall silent together pass their leases one after the other:
    whoever has been silent for `suspect_s` counts before the first of them is given up. A node that is no member any
    more cannot report; its silence says nothing about the others.
    """
    alive = [beat for beat in beats if beat.status in ALIVE]
    silent = tuple(beat for beat in alive if beat.age_s > lease_s)
    back = tuple(beat for beat in beats if beat.status == NodeStatus.LOST and beat.heard and beat.age_s <= lease_s)
    limit = lease_s if suspect_s is None else min(suspect_s, lease_s)
    members = [beat for beat in alive if beat.member]
    suspects = tuple(beat for beat in members if beat.age_s > limit)
    if len(suspects) > 1 and 2 * len(suspects) > len(members) and any(beat.member for beat in silent):
        return Verdicts(lost=tuple(beat for beat in silent if not beat.member), back=back, held=suspects)
    return Verdicts(lost=silent, back=back)


def suspect_after(lease_s: float, heartbeat_s: float) -> float:
    """The silence after which a node counts as one that fell silent together with another."""
    return max(lease_s / 2, lease_s - 2 * heartbeat_s)


def known() -> list[tuple[int, str, str]]:
    """Every node: id, name, status."""
    return list(Node.objects.order_by("name").values_list("id", "name", "status"))


def beats(
    found_nodes: list[tuple[int, str, str]],
    ages: Mapping[str, float],
    lease_given_s: float,
    members: Collection[str] | None = None,
    patience_s: float = 0.0,
) -> list[Beat]:
    """All nodes; one that was not heard of since the lease was given has that long been silent.

    `patience_s`: so much later the silence of those begins to count.
    """
    found = []
    for node_id, name, status in found_nodes:
        age = ages.get(name)
        heard = age is not None and age <= lease_given_s
        silent_s = age if heard and age is not None else max(lease_given_s - patience_s, 0.0)
        found.append(Beat(node_id, name, status, silent_s, heard, members is None or name in members))
    return found


def declare_lost(tx: Transaction, node_id: int, why: str) -> int:
    """The node is lost, and its live instances with it; returns how many. Repeat until nothing is left.

    Its singletons are given up later (`instances.singletons`).
    """
    node = Node.objects.select_for_update().filter(pk=node_id).first()
    if node is None:
        return 0
    if node.status in NODE.sources(NodeStatus.LOST, LEADER):
        before = move(Node, node.pk, table=NODE, to=NodeStatus.LOST, owner=LEADER, status_since=tx.at)
        tx.record("node.lost", "node", node.pk, change={"name": node.name, "status": [before, "lost"], "why": why})
    rows = Instance.objects.filter(node=node, status__in=ON_NODE, app__singleton=False)
    return _lose(tx, node, rows)


def declare_singletons_lost(tx: Transaction, node_id: int, ids: list[int]) -> int:
    """These of its instances as well: by now nothing of them can run."""
    node = Node.objects.select_for_update().filter(pk=node_id, status=NodeStatus.LOST).first()
    if node is None:
        return 0  # it came back at the last moment
    return _lose(tx, node, Instance.objects.filter(node=node, pk__in=ids, status__in=ON_NODE))


def _lose(tx: Transaction, node: Node, found: QuerySet[Instance]) -> int:
    rows = found.select_related("app").order_by("id")[:BATCH]
    lost = 0
    for row in rows:
        detail = f"its node {node.name} was lost"
        history = evidence.appended(row.history, tx.at, "lost", "unknown", detail, row.restarts)
        try:
            move(
                Instance, row.pk, table=INSTANCE, to=InstanceStatus.LOST, owner=LEADER, source=row.status,
                health="unknown", desired="run" if row.desired == "run" else "remove", detail=detail,
                finished_at=tx.at, history=history,
            )  # fmt: skip
        except TransitionRefused:  # its agent was heard at the last moment
            continue
        lost += 1
        tx.record("instance.lost", "instance", row.pk, org_id=row.app.org_id, app_id=row.app_id,
                  change={"status": [row.status, "lost"], "node": node.name})  # fmt: skip
    return lost


def declare_back(tx: Transaction, node_id: int) -> None:
    """Heard of again: ready, or draining if it was to drain. Its old instances have to end there first."""
    node = Node.objects.select_for_update().filter(pk=node_id, status=NodeStatus.LOST).first()
    if node is None:
        return
    to = NodeStatus.DRAINING if node.draining else NodeStatus.READY
    move(Node, node.pk, table=NODE, to=to, owner=LEADER, source=NodeStatus.LOST, status_since=tx.at)
    tx.record("node.returned", "node", node.pk, change={"name": node.name, "status": ["lost", str(to)]})


def record_hold(tx: Transaction, names: list[str]) -> None:
    """The alert: more than half of the nodes fell silent at once; nothing is moved."""
    tx.record("nodes.loss_held", "platform", 0, change={"nodes": names})


def register(tx: Transaction, name: str, address: str) -> Node:
    """A member's agent reports for the first time."""
    node = Node.objects.filter(name=name).first()
    if node is None:
        node = Node.objects.create(name=name, address=address, status_since=tx.at, created_at=tx.at)
        tx.record("node.joined", "node", node.pk, change={"name": name})
    return node


def make_ready(tx: Transaction, node: Node) -> None:
    """Its facts are known: it takes instances."""
    if node.status == NodeStatus.JOINING:
        move(Node, node.pk, table=NODE, to=NodeStatus.READY, owner=LEADER, status_since=tx.at)
        tx.record("node.ready", "node", node.pk, change={"name": node.name})


def touch(node: Node, **fields: object) -> None:
    Node.objects.filter(pk=node.pk).update(revision=F("revision") + 1, **fields)

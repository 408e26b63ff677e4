"""What a database needs after it was restored or taken over, before its first leader.

Owns three things: an epoch above every one that an agent or ingress here has seen, a readiness to hear everything from
the agents again, and the loss of nodes that this configuration does not have. Nodes that it has are left as they are:
their agents say what still runs, and that is adopted.
"""

from __future__ import annotations

import json

from django.db.models import F

from consensus import gate
from consensus.gate import Transaction
from instances import nodes
from instances.models import Instance, Node
from instances.states import LIVE
from omni.kernel.config import Config
from omni.kernel.context import system


def highest_epoch(config: Config) -> int:
    """The highest epoch that an agent or the ingress of this state directory has applied; they never go back."""
    files = [*config.state.glob("node-*/agent/applied.json"), config.state / "ingress" / "routes.json"]
    found = 0
    for file in files:
        try:
            found = max(found, int(json.loads(file.read_bytes())["epoch"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def expect_reports(tx: Transaction) -> None:
    """Whatever an agent says next is news, with whichever number: what it told before, it told another database."""
    Node.objects.update(incarnation=0, revision=F("revision") + 1)
    Instance.objects.filter(status__in=LIVE).update(observed_seq=0, observed_incarnation=0, revision=F("revision") + 1)
    tx.record("nodes.to_report_anew", "platform", 0)


def declare_lost(config: Config, cause: str) -> dict[str, int]:
    """Node → how many of its instances are to be replaced. To be called while `takeover.leading`."""
    here = {member.id for member in config.members}
    found = {}
    for node_id, name in Node.objects.exclude(name__in=here).order_by("id").values_list("id", "name"):
        found[name] = _lose(node_id, cause)
    return found


def _lose(node_id: int, cause: str) -> int:
    """In batches, like the leader's controller."""
    count = 0
    while True:
        lost, _ = gate.run(
            lambda tx: nodes.declare_lost(tx, node_id, "is no node of this configuration"),
            actor=system("operator"),
            cause=cause,
        )
        count += lost
        if lost < nodes.BATCH:
            return count

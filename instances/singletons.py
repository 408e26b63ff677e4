"""Singletons of a lost node: given up only when the node's own keeper must have ended them.

Owns that patience. Every other instance is replaced as soon as its node is lost, and may overlap with its successor; a
singleton's node ends it when its lease ends, with SIGTERM and `stop_timeout_s` later SIGKILL (`agent.keeper`), and the
leader waits for that on its own clock, which began no earlier.
"""

from __future__ import annotations

from collections.abc import Sequence

from instances.models import Instance
from instances.nodes import Beat
from instances.states import ON_NODE, NodeStatus

MARGIN_S = 2.0  # for SIGKILL to be carried out on a machine under load
LOOK_EVERY_S = 0.5


def overdue(beats: Sequence[Beat], lease_s: float) -> dict[Beat, list[int]]:
    """Lost nodes → their singletons that cannot run any more. One query, and only while a node is lost."""
    lost = {beat.node_id: beat for beat in beats if beat.status == NodeStatus.LOST and beat.age_s > lease_s}
    if not lost:
        return {}
    rows = Instance.objects.filter(node_id__in=lost, status__in=ON_NODE, app__singleton=True).order_by("id")
    found: dict[Beat, list[int]] = {}
    for pk, node_id, stop_timeout_s in rows.values_list("id", "node_id", "release__config__stop_timeout_s"):
        beat = lost[node_id]
        if beat.age_s > lease_s + stop_timeout_s + MARGIN_S:
            found.setdefault(beat, []).append(pk)
    return found

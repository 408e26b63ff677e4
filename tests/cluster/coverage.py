"""What a run must have reached to prove anything: counted from the history, the evidence and the nodes' logs.

Owns the counts and the demand. A run that met no rare state is void, however clean it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from tests.cluster.evidence import Evidence
from tests.cluster.history import Op

_REFUSED = "deposed: the fence refused"


@dataclass(frozen=True, slots=True)
class Reached:
    """`void` names what is missing."""

    acknowledged: int
    refused: int
    unknown: int
    leader_changes: int  # epochs that wrote, less one
    fence_refusals: int  # a deposed leader came as far as the fence
    resolved: int  # operations whose first answer was none, and which a repeat under the same key resolved
    replays: int  # repeats that were answered with the first answer
    forwarded: int  # writes acknowledged by another member than the one that was asked
    stale_conditions: int  # 412
    no_leader: int  # 503 no_leader
    reads: int
    nodes_lost: int  # and their instances placed elsewhere
    nodes_returned: int

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in asdict(self).items())

    def missing(self, **least: int) -> list[str]:
        """Which of these were reached less often."""
        counts = asdict(self)
        return [f"{name} {counts[name]} of {wanted}" for name, wanted in least.items() if counts[name] < wanted]


def reached(ops: list[Op], evidence: Evidence, logs: Iterable[str]) -> Reached:
    writes = [op for op in ops if op.is_write]
    tries = [one for op in writes for one in op.tries]
    acked = [op for op in writes if op.verdict == "applied"]
    return Reached(
        acknowledged=len(acked),
        refused=sum(op.verdict == "refused" for op in writes),
        unknown=sum(op.verdict == "unknown" for op in writes),
        leader_changes=max(len({event.epoch for event in evidence.events}) - 1, 0),
        fence_refusals=sum(text.count(_REFUSED) for text in logs),
        resolved=sum(op.tries[0].verdict == "unknown" for op in acked),
        replays=sum(one.replayed for one in tries),
        forwarded=sum(one.verdict == "applied" and not _asked(one.node, one.answered_by) for one in tries),
        stale_conditions=sum(one.status == 412 for one in tries),
        no_leader=sum(one.code == "no_leader" for one in tries),
        reads=sum(op.verdict == "applied" for op in ops if not op.is_write),
        nodes_lost=sum(event.kind == "node.lost" for event in evidence.events),
        nodes_returned=sum(event.kind == "node.returned" for event in evidence.events),
    )


def _asked(netloc: str, name: str) -> bool:
    """Whether the member that answered is the one that was asked (`host:port` against `host-port`)."""
    return netloc.replace(":", "-") == name

"""How long a slot waits for its next instance after one that failed or was lost. Pure."""

from __future__ import annotations

import datetime as dt

from instances.plan.model import InstanceView

FIRST_S = 10.0
LONGEST_S = 300.0


def not_before(last: InstanceView) -> dt.datetime | None:
    """When the successor of `last` may start; None for at once. The first loss of a node costs no wait."""
    if last.finished_at is None or last.completed:
        return None
    doublings = last.attempt if last.status == "failed" else last.attempt - 1
    if doublings < 0 or last.long_lived:
        return None
    return last.finished_at + dt.timedelta(seconds=min(FIRST_S * 2.0 ** min(doublings, 16), LONGEST_S))

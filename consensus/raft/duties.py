"""What a leader does by itself: found the cluster, leave when it should not lead, note what it sees of the others.

Owns when. Each duty is a command like any other and may be repeated; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.raft import machine
from consensus.raft.core import Core
from consensus.raft.roster import Roster
from omni.kernel import clock
from omni.version import VERSION

EVERY_S = 0.25
_HANDED_OVER_EVERY_S = 1.0
_NOTED_AGAIN_S = 5.0
GONE_AFTER_S = 3.0


class Duties:
    """`transfer(to)` starts handing the leadership over."""

    def __init__(self, core: Core, roster: Roster, cluster_id: str, transfer: Callable[[str], None]) -> None:
        self._core, self._roster, self._cluster_id, self._transfer = core, roster, cluster_id, transfer
        self._handed_over_at = 0.0
        self._founding_at = 0.0
        self._noted: dict[str, float] = {}
        self._gone: set[str] = set()

    def step(self, now: float, connected: set[str]) -> None:
        """Every quarter of a second."""
        core = self._core
        if not core.established:
            self._gone.clear()
            return
        if not core.state["cluster"]:
            self._found(now)
            return
        able = self._roster.able_among(connected & set(core.voters))
        if not self._roster.able() and able and now - self._handed_over_at > _HANDED_OVER_EVERY_S:
            self._handed_over_at = now
            self._transfer(able[0])
        for id, record in core.state["members"].items():
            self._note(id, record, now, here=id == core.me or id in connected)

    def _found(self, now: float) -> None:
        """The cluster's identity, once: the first leader's."""
        if now < self._founding_at:
            return
        self._founding_at = now + 1.0
        created = clock.rfc3339(clock.now())
        command = {"op": "cluster.init", "v": 1, "id": self._cluster_id, "created_at": created}
        self._core.submit({**command, "members": self._core.voters}, _forget)

    def _note(self, id: str, record: machine.State, now: float, *, here: bool) -> None:
        """Its version and when it came; when it was last seen, once it is gone."""
        word = self._roster.words.get(id)
        version = VERSION if id == self._core.me else word.version if word else ""
        said: dict[str, str | None] = {}
        if here:
            self._gone.discard(id)
            if version and version != record["version"]:
                said["version"] = version
            if record["joined_at"] is None:
                said["joined_at"] = clock.rfc3339(clock.now())
        elif word is not None and id not in self._gone and now - word.at > GONE_AFTER_S:
            self._gone.add(id)
            said["last_seen_at"] = clock.rfc3339(word.seen)
        if said and now >= self._noted.get(id, 0.0):
            self._noted[id] = now + _NOTED_AGAIN_S
            self._core.submit({"op": "member.seen", "v": 1, "id": id, **said}, _forget)


def _forget(_reply: machine.Reply | None, _outcome: str) -> None:
    """A duty that was not done is done later."""

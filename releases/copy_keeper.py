"""The leader's loop over copies of artifacts: those that are too few are made again, those that nobody wants go.

Owns what follows from what each host holds, as one pure function, and the pace of carrying it out. A host that does
not answer is counted with what it held last until it has been silent for `lost_s`; a new leader believes for so long
that silent hosts hold everything. Repairs are idempotent: a host that is asked to fetch what it has does nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from omni.kernel import clock
from releases.copies import HERE, Peers
from releases.models import Artifact
from releases.relay import ARTIFACT_GRACE
from releases.storage import store

EVERY_S = 30.0
AT_ONCE = 20  # repairs of one round: they take bandwidth from those who work
_SETTLED = dt.timedelta(seconds=30)  # an upload is copied before its row is made, but a row may be older than its bytes
_log = logging.getLogger("omni.copies")


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of a host: `held` is what it has or had, None for everything; `answers` whether it is there."""

    name: str
    held: frozenset[str] | None
    answers: bool


@dataclass(frozen=True, slots=True)
class Repair:
    sha256: str
    host: str


def plan(wanted: Iterable[str], hosts: list[Host], copies: int) -> list[Repair]:
    """Which host is to get which artifact: the one that holds least first. What nobody holds cannot be repaired."""
    load = {host.name: len(host.held or ()) for host in hosts}
    repairs = []
    for sha256 in wanted:
        holders = [host for host in hosts if host.held is None or sha256 in host.held]
        missing = min(copies, len(hosts)) - len(holders)
        if missing <= 0 or not any(host.answers for host in holders):
            continue
        free = sorted(
            (host.name for host in hosts if host.answers and host not in holders), key=lambda name: load[name]
        )
        for name in free[:missing]:
            load[name] += 1
            repairs.append(Repair(sha256, name))
    return repairs


def strays(held: Mapping[str, float], known: set[str], grace_s: float) -> list[str]:
    """What a host keeps though no row mentions it, for longer than any upload or build takes."""
    return [sha256 for sha256, age_s in held.items() if sha256 not in known and age_s > grace_s]


@dataclass(slots=True)
class CopyKeeper:
    """New for each leadership."""

    peers: Peers
    copies: int
    lost_s: float  # longer than a host needs to start again
    _since: float = field(default_factory=clock.monotonic)
    _seen: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)

    def tick(self) -> None:
        """One round. Raises the database's errors."""
        settled = clock.now() - _SETTLED
        # The lists first: an artifact that is stored meanwhile is then known, not stray.
        listed = {host: self.peers.held(host) for host in self.peers.others.hosts}
        rows = dict(Artifact.objects.values_list("pk", "created_at"))
        wanted = [sha256 for sha256, at in rows.items() if at < settled]
        self._repair(wanted, self._hosts(listed))
        for host, held in listed.items():
            for sha256 in strays(held or {}, set(rows), ARTIFACT_GRACE.total_seconds()):
                self.peers.discard(host, sha256, unless_newer_than=clock.now() - ARTIFACT_GRACE)

    def _hosts(self, listed: Mapping[str, Mapping[str, float] | None]) -> list[Host]:
        """Those that count: lost ones are left out."""
        now = clock.monotonic()
        hosts = [Host(HERE, frozenset(store().local_digests()), True)]
        for name, held in listed.items():
            if held is not None:
                self._seen[name] = (now, frozenset(held))
            at, last = self._seen.get(name, (self._since, None))
            if held is not None or now - at < self.lost_s:
                hosts.append(Host(name, last, held is not None))
        return hosts

    def _repair(self, wanted: list[str], hosts: list[Host]) -> None:
        repairs = plan(wanted, hosts, self.copies)
        for repair in repairs[:AT_ONCE]:
            done = self.peers.fetch(repair.host, repair.sha256)
            where = repair.host or "this host"
            _log.info(
                "artifact %s %s %s", repair.sha256[:12], "is copied to" if done else "could not be copied to", where
            )

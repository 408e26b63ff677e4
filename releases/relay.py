"""The relay: rings the broker's bell for queued builds, gives up on silent workers, sweeps the artifact store.

Run by the leader's daemon in a thread of its own, because a frozen broker hangs whoever publishes; nothing here stands
in the way of a request. The Build row is the truth and the broker a doorbell: what was published is remembered in
memory only, and rung again after `timings.build_republish_s`. Leases are judged on the monotonic clock: an attempt is
lost when its row showed the same lease for a whole lease long (a new leader thereby gives every worker a full lease).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from apps.models import DesiredState
from consensus import gate
from omni.kernel import clock, failpoints
from omni.kernel.context import system
from releases import services
from releases.models import Artifact, Build
from releases.states import BuildStatus
from releases.storage import store

TASK = "releases.tasks.build"
GARBAGE_EVERY_S = 600.0
ARTIFACT_GRACE = dt.timedelta(hours=6)  # longer than any build, whose package has no row until it is finished
TEMPORARY_GRACE = dt.timedelta(hours=1)  # longer than an upload may be silent
_LOOK_AT = 500  # queued builds looked at in one tick
_DEADLINE_MARGIN_S = 150.0
_log = logging.getLogger("omni.relay")

Publish = Callable[[list[int]], None]


class BrokerUnreachable(Exception):
    """The broker refused, was not there, or did not answer in time."""


@dataclass(slots=True)
class _Watched:
    """One attempt as this leader has seen it."""

    attempt: int
    lease_until: dt.datetime | None
    seen_at: float  # monotonic: since when the lease is what it is
    first_at: float  # monotonic: since when the attempt is known


@dataclass(slots=True)
class Relay:
    """`tick` is to be called after writes, and while `busy` about once a second; it blocks as long as a broker may."""

    publish: Publish
    busy: bool = False  # builds wait or are under way: time alone may make something due
    _published: dict[int, tuple[int, float]] = field(default_factory=dict)  # build -> (attempt, monotonic)
    _watched: dict[int, _Watched] = field(default_factory=dict)
    _waiting: int = 0
    _garbage_at: float | None = None

    def tick(self) -> str:
        """One round; says in a few words what it did. Raises the gate's and the database's errors."""
        lost = self._give_up_on_silent()
        rung, failed = self._ring()
        self.busy = bool(self._watched or self._waiting)
        swept = self._collect_garbage()
        parts = [
            f"{lost} lost" if lost else "",
            f"{rung} published" if rung else "",
            f"broker unreachable: {failed}" if failed else "",
            f"{swept} artifacts collected" if swept else "",
        ]
        return ", ".join(part for part in parts if part) or "idle"

    def _ring(self) -> tuple[int, str]:
        due = self._due()
        if not due:
            return 0, ""
        try:
            self.publish([build_id for build_id, _ in due])
        except BrokerUnreachable as error:
            _log.warning("builds wait for the broker: %s", error)
            return 0, str(error)
        failpoints.hit("after_publish_before_mark")
        now = clock.monotonic()
        self._published.update({build_id: (attempt, now) for build_id, attempt in due})
        return len(due), ""

    def _due(self) -> list[tuple[int, int]]:
        """Queued builds to announce, oldest first, within their orgs' `max_builds_at_once`."""
        queued = list(
            Build.objects.filter(status=BuildStatus.QUEUED)
            .exclude(app__desired_state=DesiredState.DELETED)
            .order_by("pk")
            .values_list("pk", "attempt", "app__org_id", "app__org__max_builds_at_once")[:_LOOK_AT]
        )
        self._waiting = len(queued)
        self._published = {pk: seen for pk, seen in self._published.items() if pk in {row[0] for row in queued}}
        limited = {org for _, _, org, limit in queued if limit is not None}
        taken = _running(limited)
        oldest = clock.monotonic() - settings.CONFIG.timings.build_republish_s
        due: list[tuple[int, int]] = []
        for pk, attempt, org, limit in queued:
            if limit is not None and taken[org] >= limit:
                continue  # nobody could claim it; it is announced as soon as one of the others ends
            taken[org] += 1
            last = self._published.get(pk)
            if last is None or last[0] != attempt or last[1] <= oldest:
                due.append((pk, attempt))
        return due

    def _give_up_on_silent(self) -> int:
        now = clock.monotonic()
        rows = Build.objects.filter(status=BuildStatus.BUILDING).values_list("pk", "attempt", "lease_until")
        watched: dict[int, _Watched] = {}
        for pk, attempt, lease_until in rows:
            known = self._watched.get(pk)
            if known is None or known.attempt != attempt:
                watched[pk] = _Watched(attempt, lease_until, now, now)
                continue
            if known.lease_until != lease_until:
                known.lease_until, known.seen_at = lease_until, now
            watched[pk] = known
        self._watched = watched
        return sum(self._give_up(pk, seen, now) for pk, seen in watched.items())

    def _give_up(self, build_id: int, seen: _Watched, now: float) -> int:
        config = settings.CONFIG
        past_deadline = now - seen.first_at > config.limits.build_wall_s + _DEADLINE_MARGIN_S
        if not past_deadline and now - seen.seen_at <= config.timings.build_lease_s:
            return 0
        became, _ = gate.run(
            lambda tx: services.declare_lost(
                tx,
                build_id=build_id,
                attempt=seen.attempt,
                lease_until=seen.lease_until,
                reason="build_deadline" if past_deadline else "worker_lost",
            ),
            actor=system("relay"),
            cause="lease expired",
        )
        _log.warning("build %s, attempt %s: its worker fell silent; now %s", build_id, seen.attempt, became)
        return int(became != "not lost")

    def _collect_garbage(self) -> int:
        now = clock.monotonic()
        if self._garbage_at is not None and now - self._garbage_at < GARBAGE_EVERY_S:
            return 0
        self._garbage_at = now
        return collect_garbage(clock.now())


def collect_garbage(now: dt.datetime) -> int:
    """Unreferenced artifacts and leftovers of interrupted uploads, all of them older than their grace."""
    found = store().sweep(now - TEMPORARY_GRACE)
    while True:
        purged, _ = gate.run(
            lambda tx: services.collect_artifacts(tx, wanted_before=now - ARTIFACT_GRACE),
            actor=system("relay"),
            cause="nobody refers to them",
        )
        found += services.discard(purged.artifacts)
        if purged.done:
            return found + _discard_strays(now - ARTIFACT_GRACE)


def _discard_strays(older_than: dt.datetime) -> int:
    """Files that no row ever mentioned: a refused upload's, a package whose build was lost."""
    batch: list[str] = []
    found = 0
    for digest in store().local_digests():
        batch.append(digest)
        if len(batch) == services.PURGE_BATCH:
            found += _discard_unknown(batch, older_than)
            batch = []
    return found + _discard_unknown(batch, older_than)


def _discard_unknown(digests: list[str], older_than: dt.datetime) -> int:
    known = set(Artifact.objects.filter(pk__in=digests).values_list("pk", flat=True))
    return sum(store().discard(digest, unless_newer_than=older_than) for digest in digests if digest not in known)


def _running(org_ids: Iterable[int]) -> Counter[int]:
    rows = Build.objects.filter(app__org_id__in=list(org_ids), status=BuildStatus.BUILDING)
    return Counter(rows.values_list("app__org_id", flat=True))


def celery_publisher(app: Any, *, connect_timeout_s: float = 2.0, answer_timeout_s: float = 3.0) -> Publish:
    """Publish through a Celery app, on a connection of its own with short time-outs that is dropped after each use.

    Ids only, no retries: the next tick is the retry.
    """
    from kombu.exceptions import OperationalError

    options = {
        **(app.conf.broker_transport_options or {}),
        "socket_connect_timeout": connect_timeout_s,
        "socket_timeout": answer_timeout_s,
        "retry_on_timeout": False,
        "max_retries": 0,
    }

    def publish(build_ids: list[int]) -> None:
        connection = app.connection_for_write(transport_options=options, connect_timeout=connect_timeout_s)
        try:
            with app.amqp.Producer(connection) as producer:
                for build_id in build_ids:
                    app.send_task(TASK, args=[build_id], producer=producer, retry=False, ignore_result=True)
        except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
            raise BrokerUnreachable(f"{type(error).__name__}: {error}"[:200]) from error
        finally:
            connection.release()

    return publish

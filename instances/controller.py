"""The leader's loop over apps and nodes: observe → plan (pure) → apply (gated).

Owns which apps are looked at and when: those that events touched since the last look, those whose plan wanted to be
asked again, and a few at a time of all others. An idle tick costs one query and a few small file reads. The daemon
calls `tick`; nothing of this is remembered anywhere but in the database.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from django.conf import settings

from apps.models import App
from consensus import fence, gate
from instances import heartbeats, ledger, nodes, observe, purge, services, singletons
from instances.apply import ObservedElsewise, apply
from instances.cron import clockwork
from instances.models import Deployment
from instances.observe import Seen
from instances.placement import Pool
from instances.plan.actions import Assign, Place, Plan, Purge, brief
from instances.plan.planner import plan
from instances.tasks import runner as task_runner
from omni.kernel import clock, failpoints
from omni.kernel.context import on_behalf_of, system
from omni.kernel.errors import Conflict, TransitionRefused
from omni.kernel.models import ORDINALS

FULL_PASS_S = 30.0
PORTION = 200  # apps that one tick looks at
_EVENTS = 2_000
_FORGET_EVERY_S = 600.0
_LEDGERS_EVERY_S = 10.0
_LONG_PAUSE_S = 10.0  # after which deployments get their deadline anew
_ACTOR = system("controller")
_log = logging.getLogger("omni.controller")


def _request_of(app_id: int) -> str:
    """The request that wished for the deployment that is under way; empty without one."""
    return Deployment.objects.filter(active_key=app_id).values_list("request_id", flat=True).first() or ""


@dataclass(slots=True)
class Controller:
    """One per leadership: a new leader makes a new one, which gives every node a full lease and looks at every app."""

    ages: Callable[[], dict[str, float]] = field(default_factory=lambda: heartbeats.own().ages)
    patience_s: float = 0.0  # more than the lease, for nodes that were not heard of under this leader yet
    _key: int = -1
    _index: int = -1
    _dirty: set[int] = field(default_factory=set)
    _due: dict[int, float] = field(default_factory=dict)  # app → monotonic time at which to look again
    _sweep_app: int = 0
    _sweep_at: float = 0.0
    _forget_at: float = 0.0
    _ledgers_at: float = 0.0
    _lease_from: float = field(default_factory=clock.monotonic)
    _since: dt.datetime = field(default_factory=clock.now)
    _last_tick: float = field(default_factory=clock.monotonic)
    _held: frozenset[str] = frozenset()
    _singletons_at: float = 0.0
    _nodes: list[tuple[int, str, str]] = field(default_factory=list)

    def step(self) -> float | None:
        """`tick`, and the seconds until the next one is due at the latest (None: no wish)."""
        self.tick()
        return self.due_in()

    def tick(self) -> str:
        """Look at what changed and at what is due; one sentence about what was done."""
        now = clock.monotonic()
        self._mind_the_gap(now)
        index = fence.write_index()
        moved, self._index = index != self._index, index
        if moved:
            self._nodes = nodes.known()
        told = self._judge_nodes(now)
        self._close_ledgers(now)
        self._collect(now, moved)
        if not self._dirty:
            return told or "nothing to do"
        portion = sorted(self._dirty)[:PORTION]
        self._dirty.difference_update(portion)
        try:
            acted = self._look_at(portion)
        except BaseException:
            self._dirty.update(portion)
            raise
        return "; ".join(part for part in (told, f"looked at {len(portion)} apps, acted on {acted}") if part)

    def due_in(self) -> float | None:
        """Seconds until some app wants to be looked at again; 0 when some are left over."""
        if self._dirty:
            return 0.0
        return max(min(self._due.values()) - clock.monotonic(), 0.0) if self._due else None

    # -- which apps

    def _collect(self, now: float, moved: bool) -> None:
        if self._key < 0:
            self._key = (self._index + 1) * ORDINALS - 1  # the full pass sees everything before
        elif moved:
            self._take_events()
        due = [app_id for app_id, at in self._due.items() if at <= now]
        for app_id in due:
            del self._due[app_id]
        self._dirty.update(due)
        if now >= self._sweep_at and not self._dirty:
            self._sweep(now)

    def _take_events(self) -> None:
        rows, self._key = observe.apps_touched(self._key, _EVENTS)
        moved = {object_id for _, _, kind, object_id, _ in rows if kind == "node"}
        self._dirty.update(app_id for *_, app_id in rows if app_id is not None)
        if moved:
            self._dirty |= observe.apps_on_nodes(moved)
        freed = any(kind.startswith(("instance.stopped", "instance.failed", "app.")) for _, kind, *_ in rows)
        if moved or freed:
            self._dirty |= observe.apps_waiting_for_room()
        if len(rows) == _EVENTS:
            self._sweep_at = 0.0

    def _sweep(self, now: float) -> None:
        """The next portion of all apps; when the last is through, the pass rests."""
        found = observe.apps_after(self._sweep_app, PORTION)
        self._dirty.update(found)
        if len(found) < PORTION:
            self._sweep_app, self._sweep_at = 0, now + FULL_PASS_S
            self._forget_ended(now)
        else:
            self._sweep_app = found[-1]

    def _forget_ended(self, now: float) -> None:
        """Instances long gone, once their logs are older than they are kept."""
        if now >= self._forget_at:
            oldest = clock.now() - dt.timedelta(seconds=settings.CONFIG.timings.log_retention_s)
            forgotten = (purge.forget_ended(oldest), task_runner.forget_ended(oldest, purge.BATCH),
                         clockwork.forget_ended(oldest, purge.BATCH))  # fmt: skip
            more = purge.BATCH in forgotten
            self._forget_at = now + (0 if more else _FORGET_EVERY_S)

    def _close_ledgers(self, now: float) -> None:
        if now >= self._ledgers_at:
            more = ledger.close_due() == ledger.BATCH
            self._ledgers_at = now + (0 if more else _LEDGERS_EVERY_S)

    # -- one app after the other

    def _look_at(self, app_ids: list[int]) -> int:
        views = observe.node_views()
        pool, acted = Pool(views), 0
        for found in observe.observe(app_ids, views, self._since):
            seen = replace(found, observed=replace(found.observed, pool=pool))
            if seen.unfulfilled:
                self._fulfil(seen)
                acted += 1
                continue
            made = self._plan(seen)
            if any(isinstance(action, Purge) for action in made.actions):
                self._purge(seen.app_id)
                acted += 1
            elif made.changes(seen.observed.status):
                self._apply(seen, made)
                _reserve(pool, seen, made)
                acted += 1
        return acted

    def _plan(self, seen: Seen) -> Plan:
        now = clock.now()
        made = plan(seen.desired, seen.observed, now)
        if made.wait_until is not None:
            self._due[seen.app_id] = clock.monotonic() + max((made.wait_until - now).total_seconds(), 0.05)
        return made

    def _apply(self, seen: Seen, made: Plan) -> None:
        with on_behalf_of(_request_of(seen.app_id)):
            self._write(seen, made)

    def _write(self, seen: Seen, made: Plan) -> None:
        failpoints.hit("planned_before_write")
        cause = next((action.why for action in made.actions), f"the app is {made.status}")
        try:
            gate.run(lambda tx: apply(tx, seen, made), actor=_ACTOR, cause=cause[:200])
        except (ObservedElsewise, Conflict, TransitionRefused) as refused:
            _log.debug("app %d changed while it was looked at: %r", seen.app_id, refused)
            self._dirty.add(seen.app_id)
            return
        for action in made.actions:
            _log.info("app %d: %s", seen.app_id, brief(action))

    def _fulfil(self, seen: Seen) -> None:
        """A wish that a lower layer left as data becomes a deployment."""

        def verb(tx: gate.Transaction) -> None:
            app = App.objects.select_for_update().filter(pk=seen.app_id, revision=seen.app_revision).first()
            if app is not None:
                services.open_deployment(tx, app)

        wished_by = App.objects.filter(pk=seen.app_id).values_list("deploy_request", flat=True).first()
        with on_behalf_of(wished_by or ""):
            gate.run(verb, actor=_ACTOR, cause="a wish without a deployment")
        self._dirty.add(seen.app_id)

    def _purge(self, app_id: int) -> None:
        if task_runner.live_instances(app_id):  # they are being ended; their ends are events of the app
            self._due[app_id] = clock.monotonic() + 1.0
        elif not purge.purge(app_id):
            self._dirty.add(app_id)

    # -- nodes

    def _mind_the_gap(self, now: float) -> None:
        """After a pause of our own (frozen, or without a database) silence proves nothing: every node gets a lease."""
        if now - self._last_tick > settings.CONFIG.timings.node_lease_s / 2:
            self._lease_from = now
        if now - self._last_tick > _LONG_PAUSE_S:
            self._since = clock.now()
        self._last_tick = now

    def _judge_nodes(self, now: float) -> str:
        times = settings.CONFIG.timings
        members = {member.id for member in settings.CONFIG.members}
        beats = nodes.beats(self._nodes, self.ages(), now - self._lease_from, members, self.patience_s)
        suspect_s = nodes.suspect_after(times.node_lease_s, times.heartbeat_s)
        verdicts = nodes.judge(beats, times.node_lease_s, suspect_s)
        told = []
        for beat in verdicts.lost:
            self._declare_lost(beat)
            told.append(f"{beat.name} is lost")
        for beat in verdicts.back:
            self._declare_back(beat)
            told.append(f"{beat.name} is back")
        self._hold([beat.name for beat in verdicts.held])
        told += self._lose_singletons(beats, now)
        return ", ".join(told)

    def _declare_lost(self, beat: nodes.Beat) -> None:
        why = f"silent for {beat.age_s:.1f} s"
        while True:
            lost, _ = gate.run(
                lambda tx: nodes.declare_lost(tx, beat.node_id, why), actor=_ACTOR, cause=f"{beat.name} is {why}"
            )
            if lost < nodes.BATCH:
                return

    def _lose_singletons(self, beats: list[nodes.Beat], now: float) -> list[str]:
        if now < self._singletons_at:
            return []
        self._singletons_at = now + singletons.LOOK_EVERY_S
        told = []
        for beat, ids in singletons.overdue(beats, settings.CONFIG.timings.node_lease_s).items():
            cause = f"{beat.name} is silent for {beat.age_s:.1f} s"
            gate.run(
                lambda tx, beat=beat, ids=ids: nodes.declare_singletons_lost(tx, beat.node_id, ids),  # type: ignore[misc]
                actor=_ACTOR,
                cause=cause,
            )
            told.append(f"{len(ids)} singletons of {beat.name} are lost")
        return told

    def _declare_back(self, beat: nodes.Beat) -> None:
        gate.run(
            lambda tx: nodes.declare_back(tx, beat.node_id), actor=_ACTOR, cause=f"{beat.name} is heard again"
        )  # fmt: skip

    def _hold(self, names: list[str]) -> None:
        held = frozenset(names)
        if held and not self._held:
            _log.error("%d nodes fell silent at once: nothing is moved (%s)", len(held), ", ".join(sorted(held)))
            gate.run(lambda tx: nodes.record_hold(tx, sorted(held)), actor=_ACTOR, cause="more than half at once")
        self._held = held


def _reserve(pool: Pool, seen: Seen, made: Plan) -> None:
    """What the next app of this pass finds taken."""
    rows = {row.id: row for row in seen.observed.instances}
    for action in made.actions:
        if isinstance(action, (Place, Assign)) and action.choice.node is not None:
            size = action.size if isinstance(action, Place) else rows[action.instance]
            pool.take(action.choice.node.id, size.memory_mb, size.cpu)

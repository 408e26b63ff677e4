"""A cluster on paper: carries plans out without a database, for dry runs and for the planner's tests.

Owns what the database and the agents would make of each action. Agents act when told to; whoever holds the world
decides which of them act, and how an instance fares.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace

from instances.placement import Need, NodeView
from instances.plan import actions as act
from instances.plan.model import (
    ANYWHERE,
    WEB,
    CommandView,
    DeploymentView,
    Desired,
    InstanceView,
    Observed,
    ProcessSize,
    ReleaseView,
    Strategy,
)
from instances.plan.opening import opening
from instances.plan.planner import plan
from instances.rollout.traffic import Split

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def release(number: int, memory_mb: int = 64, *others: str) -> ReleaseView:
    """Of web and of the `others`, all of one size."""
    sizes = tuple(ProcessSize(name, memory_mb, 0.5) for name in (WEB, *others))
    return ReleaseView(number * 10, number, f"v{number}", memory_mb, 0.5, processes=sizes)


def nodes(*memory_mb: int) -> tuple[NodeView, ...]:
    return tuple(NodeView(i + 1, f"n{i + 1}", "ready", memory, 2) for i, memory in enumerate(memory_mb))


@dataclass
class World:
    """One app on a few nodes. `broken` are the numbers of releases that never get healthy."""

    count: int = 1
    state: str = "running"
    strategy: Strategy = field(default_factory=lambda: Strategy(min_ready_s=0))
    singleton: bool = False
    nodes: tuple[NodeView, ...] = field(default_factory=lambda: nodes(4096, 4096, 4096))
    now: dt.datetime = START
    broken: set[int] = field(default_factory=set)
    instances: dict[int, InstanceView] = field(default_factory=dict)
    deployment: DeploymentView | None = None
    status: str = "created"
    purged: bool = False
    failures: list[act.FailDeployment] = field(default_factory=list)
    wants: Need = ANYWHERE
    watched_since: dt.datetime | None = None
    allocated: dict[int, int] = field(default_factory=dict)  # memory of other apps, by node
    others: dict[str, int] = field(default_factory=dict)  # counts of process types beside web

    def wish(self, kind: str, target: ReleaseView | None) -> None:
        """A new deployment, as `services.open_deployment` makes it."""
        last, id_ = self.deployment, (self.deployment.id if self.deployment else 0) + 1
        taking = [row for pool in self.pools().values() for row in pool]
        in_use = target is not None and any(row.release_id == target.id for row in taking)
        opened = opening(last, kind, target, self.strategy, singleton=self.singleton, in_use=in_use)
        if last is not None and opened.leaves is not None and last.release is not None:
            split = Split(last.release.id, last.floor, 0)
            for row in self.wanted():
                new = split.brings(row.release_id, row.deployment_id)
                fits = target is not None and row.release_id == target.id
                if row.process_type == WEB and new == (opened.leaves == "new") and not fits:
                    self._set(row.id, desired="stop")
        self.deployment = DeploymentView(
            id_, kind, "pending", target, opened.previous, opened.strategy, self.now, None,
            id_ if opened.floor is None else opened.floor, opened.previous_floor, opened.first, opened.paused,
            opened.promoted, opened.baking_since, opened.new_percent,
        )  # fmt: skip

    def desired(self) -> Desired:
        return Desired(
            1, self.state, self.count, self.deployment, self.singleton, self.wants,
            watched_since=self.watched_since, others=tuple(sorted(self.others.items())),
        )  # fmt: skip

    def observed(self) -> Observed:
        used = dict(self.allocated)
        for i in self.instances.values():
            if i.live and i.node_id is not None:
                used[i.node_id] = used.get(i.node_id, 0) + i.memory_mb
        draining = {node.id for node in self.nodes if node.status == "draining"}
        seen = tuple(
            replace(i, node_draining=i.node_id in draining) for i in self.instances.values() if i.desired != "remove"
        )
        return Observed(self.status, seen, tuple(replace(n, memory_used_mb=used.get(n.id, 0)) for n in self.nodes))

    def plan(self) -> act.Plan:
        return plan(self.desired(), self.observed(), self.now)

    def apply(self, made: act.Plan, most: int | None = None) -> None:
        """Carry out the first `most` actions."""
        for action in made.actions[:most]:
            self._carry_out(action)
        if most is None or most >= len(made.actions):
            self.status = made.status

    def _carry_out(self, action: act.Action) -> None:
        if isinstance(action, act.Place):
            self._place(action)
        elif isinstance(action, act.Assign):
            node = action.choice.node
            assert node is not None  # noqa: S101
            self._set(action.instance, status="placed", node_id=node.id, node_name=node.name)
        elif isinstance(action, act.Explain):
            self._set(action.instance, reason=action.why)
        elif isinstance(action, act.Stop):
            row = self.instances[action.instance]
            pending = {"status": "stopped", "desired": "remove"} if row.status == "pending" else {"desired": "stop"}
            self._set(action.instance, **pending)
        elif isinstance(action, act.Forget):
            self._set(action.instance, desired="remove")
        elif isinstance(action, act.Purge):
            self.purged = True
        else:
            self._advance(action)

    def _place(self, action: act.Place) -> None:
        assert self.deployment is not None  # noqa: S101
        id_, node = max([0, *self.instances]) + 1, action.choice.node
        self.instances[id_] = InstanceView(
            id_, action.slot, action.release.id, self.deployment.id, "run", "placed" if node else "pending", "unknown",
            self.now, action.size.memory_mb, action.size.cpu, node.id if node else None,
            node.name if node else "", attempt=action.attempt, reason="" if node else action.choice.reason,
            process_type=action.process_type,
        )  # fmt: skip
        for row in action.replaces:
            self._set(row, desired="remove")

    def _advance(self, action: act.Action) -> None:
        assert self.deployment is not None  # noqa: S101
        anew: dict[str, object] = {"progress": None, "progress_at": self.now}
        match action:
            case act.Prepare():
                changes: dict[str, object] = {"command": CommandView("succeeded")}
            case act.Begin():
                changes = {"status": "rolling"}
            case act.Progress():
                changes = {"progress": action.measure, "progress_at": self.now}
            case act.Bake():
                changes = {"baking_since": self.now, "new_percent": action.percent, **anew}
            case act.Promote():
                changes = {"promoted": True, "new_percent": action.percent, **anew}
            case act.Shift():
                changes = {"new_percent": action.percent, "warm_until": action.warm_until, **anew}
            case act.Revert():
                changes = {"status": "reverting", "new_percent": action.percent, "finished_at": None, **anew}
            case act.FailDeployment():
                self.failures.append(action)
                changes = {"status": "failed", "finished_at": self.now}
            case _:
                done = "reverted" if self.deployment.status == "reverting" else "succeeded"
                changes = {"status": done, "finished_at": self.now}
        self.deployment = replace(self.deployment, **changes)  # type: ignore[arg-type]

    def _set(self, id_: int, **changes: object) -> None:
        self.instances[id_] = replace(self.instances[id_], **changes)  # type: ignore[arg-type]

    def agent_acts(self, id_: int) -> None:
        """One step of one instance's agent."""
        row = self.instances[id_]
        if not row.live or row.status == "pending":
            return
        if row.desired == "stop":
            if row.status == "stopping":
                self._set(id_, status="stopped", desired="remove", finished_at=self.now)
            else:
                self._set(id_, status="stopping")
        elif row.status in ("placed", "crashed"):
            self._set(id_, status="starting", health="starting")
        elif row.status == "starting" and row.release_id // 10 in self.broken:
            self._set(id_, status="failed", finished_at=self.now, detail="exited with code 1")
        elif row.status == "starting":
            self._set(id_, status="running", health="healthy", ever_healthy=True, healthy_since=self.now)

    def promote_by_hand(self) -> bool:
        """What the verb does; False when there is nothing that waits for it."""
        deployment = self.deployment
        if deployment is None or deployment.strategy.promote != "manual" or not deployment.on_trial:
            return False
        if deployment.baking_since is None or deployment.paused:
            return False
        percent = None if deployment.strategy.type == "canary" else deployment.new_percent
        self.deployment = replace(
            deployment, promoted=True, new_percent=percent, progress=None, progress_at=self.now
        )  # fmt: skip
        return True

    def lose(self, node_id: int) -> None:
        self.nodes = tuple(replace(n, status="lost") if n.id == node_id else n for n in self.nodes)
        for row in list(self.instances.values()):
            if row.live and row.node_id == node_id:
                wish = "remove" if row.desired == "stop" else row.desired
                self._set(row.id, status="lost", desired=wish, finished_at=self.now)

    def settle(self, rounds: int = 400) -> None:
        """Plan, apply, let every agent act, until nothing changes any more. Raises when that never comes."""
        for _ in range(rounds):
            made = self.plan()
            self.apply(made)
            before = dict(self.instances)
            for id_ in list(self.instances):
                self.agent_acts(id_)
            if not made.changes(self.status) and before == self.instances:
                if made.wait_until is None:
                    return
                self.now = max(self.now, made.wait_until)
            self.now += dt.timedelta(seconds=1)
        raise AssertionError(f"does not settle: {self.plan()}")

    def live(self) -> list[InstanceView]:
        return [i for i in self.instances.values() if i.live]

    def wanted(self) -> list[InstanceView]:
        return [i for i in self.instances.values() if i.wanted]

    def serving(self) -> list[InstanceView]:
        return [i for i in self.instances.values() if i.available]

    def pools(self) -> dict[str, list[InstanceView]]:
        """Who takes requests, by the rule that the routes follow."""
        found: dict[str, list[InstanceView]] = {"stable": [], "canary": []}
        deployment = self.deployment
        split = None
        if deployment is not None and deployment.release is not None and deployment.new_percent is not None:
            split = Split(deployment.release.id, deployment.floor, deployment.new_percent)
        for row in self.serving():
            if row.process_type != WEB:
                continue
            pool = split.pool_of(row.release_id, row.deployment_id) if split else "stable"
            if pool is not None:
                found[pool].append(row)
        return found

    def crash(self, id_: int) -> None:
        """The process of an instance ends by itself."""
        row = self.instances[id_]
        changes = {"crashes": row.crashes + 1} if row.ever_healthy else {}
        self._set(id_, status="crashed", health="unknown", healthy_since=None, restarts=row.restarts + 1, **changes)

"""What a plan is made from: one app's wish and what is seen of it, as frozen values. Pure.

Owns the vocabulary between observation, strategies and planner. No ORM, clock or network.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from apps.processes import WEB as WEB
from apps.strategy import Strategy as Strategy
from instances.placement import Need, NodeView, Pool
from instances.states import ENDED, InstanceStatus

ACTIVE = frozenset({"pending", "rolling", "reverting"})
CANCELLABLE = frozenset({"deploy", "rollback", "config", "restart"})
LONG_LIVED = dt.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ProcessSize:
    """A process type of a release, and what one instance of it takes."""

    name: str
    memory_mb: int
    cpu: float


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """`processes`: the types that it has; none named: web alone, of the release's own size."""

    id: int
    number: int
    version: str
    memory_mb: int
    cpu: float
    restart_policy: str = "always"
    processes: tuple[ProcessSize, ...] = ()

    def size_of(self, process_type: str) -> ProcessSize | None:
        """None: the release has no such type."""
        if not self.processes:
            return ProcessSize(WEB, self.memory_mb, self.cpu) if process_type == WEB else None
        return next((size for size in self.processes if size.name == process_type), None)

    def has(self, process_type: str) -> bool:
        return self.size_of(process_type) is not None


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side answered in a period; `histogram` counts by latency as `agent.routing` has it."""

    requests: int = 0
    failed: int = 0
    histogram: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Compared:
    """The new release and the one before, in the same period."""

    new: Figures
    old: Figures


@dataclass(frozen=True, slots=True)
class CommandView:
    """The release command of a deployment. `state`: due (nothing was begun), running, or how it ended."""

    state: str
    why: str = ""
    instance: int | None = None


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """The app's newest deployment. `floor`: instances that an earlier deployment made are to be replaced (restart).

    `previous` is what ran, settled, when it began; `progress` is the highest measure of closeness to its end so far;
    `first` is the deployment that began this rollout where a scaling carries one on, else 0. The rest is what has
    happened in its phases: see `plan.phases`.
    """

    id: int
    kind: str
    status: str
    release: ReleaseView | None
    previous: ReleaseView | None
    strategy: Strategy
    progress_at: dt.datetime
    progress: int | None = None
    floor: int = 0
    previous_floor: int = 0
    first: int = 0
    paused: bool = False
    promoted: bool = False
    baking_since: dt.datetime | None = None
    new_percent: int | None = None
    warm_until: dt.datetime | None = None
    finished_at: dt.datetime | None = None
    compared: Compared | None = None
    command: CommandView | None = None

    @property
    def preparing(self) -> bool:
        """Its release command has not succeeded yet: nothing of the new release may start."""
        return self.status == "pending" and self.command is not None and self.command.state != "succeeded"

    @property
    def active(self) -> bool:
        return self.status in ACTIVE

    @property
    def under_way(self) -> bool:
        """On its way forward: neither over nor on its way back."""
        return self.status in ("pending", "rolling")

    @property
    def on_trial(self) -> bool:
        """The new release stands beside the old one and has not been let take over yet."""
        return self.under_way and self.strategy.stepwise and not self.promoted and self.new_percent != 100

    @property
    def since(self) -> int:
        """Instances of this deployment and later are this rollout's own."""
        return self.first or self.id

    @property
    def changes(self) -> bool:
        """Whether what it wants differs from what ran before."""
        return (self.release, self.floor) != (self.previous, self.previous_floor)

    @property
    def watched(self) -> bool:
        """Whether it can still fail though it has succeeded: it brought another release, and there is a way back."""
        another = self.release is not None and self.previous is not None and self.release.id != self.previous.id
        return self.status == "succeeded" and another and self.can_revert

    @property
    def can_revert(self) -> bool:
        """Whether there is something else to go back to."""
        return self.previous is not None and self.changes and self.strategy.auto_revert


ANYWHERE = Need(0, 0.0)


@dataclass(frozen=True, slots=True)
class Desired:
    """What people want of the app. `instances` are those of web, `others` the counts of the other process types."""

    app_id: int
    state: str  # running | stopped | deleted
    instances: int
    deployment: DeploymentView | None
    singleton: bool = False
    wants: Need = ANYWHERE  # of a node; memory and CPU are the release's
    watched_since: dt.datetime | None = None  # nobody could act before that: deadlines count from it
    others: tuple[tuple[str, int], ...] = ()

    def count_of(self, process_type: str) -> int:
        if self.state != "running":
            return 0
        return self.instances if process_type == WEB else dict(self.others).get(process_type, 0)


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One instance row that is not dealt with yet: live, or ended while it was still wanted.

    `attempt` counts the earlier instances of its slot, in a row, that failed or were lost; `crashes` the times it ended
    unasked after it had been healthy; `healthy_since` is None while it is not healthy, or nobody knows since when.
    """

    id: int
    slot: int
    release_id: int
    deployment_id: int
    desired: str  # run | stop
    status: str
    health: str
    created_at: dt.datetime
    memory_mb: int = 0
    cpu: float = 0.0
    node_id: int | None = None
    node_name: str = ""
    node_draining: bool = False
    ever_healthy: bool = False
    restarts: int = 0
    attempt: int = 0
    finished_at: dt.datetime | None = None
    detail: str = ""
    reason: str = ""
    healthy_since: dt.datetime | None = None
    crashes: int = 0
    process_type: str = WEB

    @property
    def live(self) -> bool:
        return self.status not in ENDED

    @property
    def wanted(self) -> bool:
        return self.live and self.desired == "run"

    @property
    def available(self) -> bool:
        """Serving, as far as anybody can tell."""
        return self.wanted and self.status == InstanceStatus.RUNNING and self.health == "healthy"

    @property
    def long_lived(self) -> bool:
        """It served well enough that its end is no sign of a series."""
        return self.ever_healthy and self.finished_at is not None and self.finished_at - self.created_at > LONG_LIVED

    @property
    def completed(self) -> bool:
        """Ended by itself, with success, while nobody had asked it to (restart policies on_failure and never)."""
        return self.status == InstanceStatus.STOPPED and self.desired == "run"


@dataclass(frozen=True, slots=True)
class Observed:
    """What is seen: the app's own status column, its instances, and all nodes.

    `pool` are the same nodes with what earlier plans of the same pass have taken; a plan that is given none makes one.
    """

    status: str
    instances: tuple[InstanceView, ...] = ()
    nodes: tuple[NodeView, ...] = field(default_factory=tuple)
    pool: Pool | None = field(default=None, compare=False, repr=False)

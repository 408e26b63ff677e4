"""The state machines of instances, deployments and nodes, as tables. Pure.

Each source state has one owner but for the exceptions named in `shared`: any live instance may be declared lost by
the leader when its node is gone.
"""

from __future__ import annotations

from django.db.models import TextChoices

from omni.kernel.transitions import TransitionTable

AGENT, LEADER, API = "agent", "leader", "api"


class InstanceStatus(TextChoices):
    PENDING = "pending"
    PLACED = "placed"
    STARTING = "starting"
    RUNNING = "running"
    CRASHED = "crashed"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


I = InstanceStatus  # noqa: E741
LIVE = frozenset({I.PENDING, I.PLACED, I.STARTING, I.RUNNING, I.CRASHED, I.STOPPING})
ENDED = frozenset({I.STOPPED, I.FAILED, I.LOST})
ON_NODE = frozenset({I.PLACED, I.STARTING, I.RUNNING, I.CRASHED, I.STOPPING})

INSTANCE = TransitionTable(
    noun="instance",
    order=(I.PENDING, I.PLACED, I.STARTING, I.RUNNING, I.CRASHED, I.STOPPING, I.STOPPED, I.FAILED, I.LOST),
    initial=I.PENDING,
    terminal=frozenset({I.STOPPED, I.FAILED, I.LOST}),
    edges={
        (I.PENDING, I.PLACED): LEADER,
        (I.PENDING, I.STOPPED): LEADER,  # nobody wants it any more and no node has it
        # an agent reports in batches: short-lived states between two reports are skipped
        (I.PLACED, I.RUNNING): AGENT,
        (I.PLACED, I.CRASHED): AGENT,
        (I.PLACED, I.STOPPING): AGENT,
        (I.CRASHED, I.RUNNING): AGENT,
        (I.PLACED, I.STARTING): AGENT,
        (I.PLACED, I.STOPPED): AGENT,
        (I.PLACED, I.FAILED): AGENT,
        (I.STARTING, I.RUNNING): AGENT,
        (I.STARTING, I.CRASHED): AGENT,
        (I.STARTING, I.STOPPING): AGENT,
        (I.STARTING, I.STOPPED): AGENT,
        (I.STARTING, I.FAILED): AGENT,
        (I.RUNNING, I.CRASHED): AGENT,
        (I.RUNNING, I.STARTING): AGENT,  # restarted in place on request
        (I.RUNNING, I.STOPPING): AGENT,
        (I.RUNNING, I.STOPPED): AGENT,
        (I.RUNNING, I.FAILED): AGENT,
        (I.CRASHED, I.STARTING): AGENT,
        (I.CRASHED, I.STOPPING): AGENT,
        (I.CRASHED, I.STOPPED): AGENT,
        (I.CRASHED, I.FAILED): AGENT,
        (I.STOPPING, I.STOPPED): AGENT,
        (I.STOPPING, I.FAILED): AGENT,
        (I.PLACED, I.LOST): LEADER,
        (I.STARTING, I.LOST): LEADER,
        (I.RUNNING, I.LOST): LEADER,
        (I.CRASHED, I.LOST): LEADER,
        (I.STOPPING, I.LOST): LEADER,
    },
    backward=frozenset({(I.CRASHED, I.STARTING), (I.CRASHED, I.RUNNING), (I.RUNNING, I.STARTING)}),
    shared=frozenset({I.PLACED, I.STARTING, I.RUNNING, I.CRASHED, I.STOPPING}),  # the leader declares them lost
)


class DeploymentStatus(TextChoices):
    PENDING = "pending"
    ROLLING = "rolling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVERTING = "reverting"
    REVERTED = "reverted"


D = DeploymentStatus
DEPLOYMENT = TransitionTable(
    noun="deployment",
    order=(D.PENDING, D.ROLLING, D.SUCCEEDED, D.FAILED, D.CANCELLED, D.REVERTING, D.REVERTED),
    initial=D.PENDING,
    # failed and cancelled are the end unless the deployment reverts (auto_revert is a phase of it), succeeded is
    # unless the release crashes while it is still watched
    terminal=frozenset({D.REVERTED}),
    edges={
        (D.PENDING, D.ROLLING): LEADER,
        (D.PENDING, D.FAILED): LEADER,
        (D.PENDING, D.CANCELLED): API,
        (D.ROLLING, D.SUCCEEDED): LEADER,
        (D.ROLLING, D.FAILED): LEADER,
        (D.ROLLING, D.CANCELLED): API,
        (D.SUCCEEDED, D.FAILED): LEADER,
        (D.FAILED, D.REVERTING): LEADER,
        (D.CANCELLED, D.REVERTING): LEADER,
        (D.REVERTING, D.REVERTED): LEADER,
    },
    shared=frozenset({D.PENDING, D.ROLLING}),  # cancel, by name (STYLE 3.3)
)
ACTIVE_DEPLOYMENT = frozenset({D.PENDING, D.ROLLING, D.REVERTING})


class NodeStatus(TextChoices):
    JOINING = "joining"
    READY = "ready"
    DRAINING = "draining"
    LOST = "lost"


N = NodeStatus
NODE = TransitionTable(
    noun="node",
    order=(N.JOINING, N.READY, N.DRAINING, N.LOST),
    initial=N.JOINING,
    terminal=frozenset(),
    edges={
        (N.JOINING, N.READY): LEADER,
        (N.READY, N.DRAINING): API,
        (N.DRAINING, N.READY): API,
        (N.READY, N.LOST): LEADER,
        (N.DRAINING, N.LOST): LEADER,
        (N.LOST, N.READY): LEADER,
        (N.LOST, N.DRAINING): LEADER,  # it was draining when it was lost
    },
    backward=frozenset({(N.DRAINING, N.READY), (N.LOST, N.READY), (N.LOST, N.DRAINING)}),
    shared=frozenset({N.READY, N.DRAINING}),
)

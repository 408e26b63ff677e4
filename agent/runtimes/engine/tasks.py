"""What a Swarm service's tasks say of the one instance that the service stands for. Pure.

Owns the mapping from task states to what `agent.runtimes.base` can observe. A service of ours has one task that counts;
the others are its predecessors: ended ones, kept as evidence, and those that Swarm moved away from a node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent.runtimes.base import Observation
from agent.runtimes.engine.output import moment

Task = Mapping[str, Any]
PARKED = "node.id==parked"  # a place that no node has: a task that wants it never runs
_ENDED = frozenset({"complete", "failed", "shutdown", "rejected", "remove", "orphaned"})
_BY_ITSELF = frozenset({"complete", "failed", "rejected"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """`task` is the one that `state` is about. waiting: nothing runs yet, or not any more and it is on its way to
    another node; `why` is Swarm's own word on that, or on an end."""

    state: Literal["waiting", "running", "ended", "absent"]
    task: Task | None = None
    why: str = ""

    @property
    def container(self) -> str:
        """Its id on the engine of `node`; empty before there is one."""
        return str(_container(self.task).get("ContainerID", "")) if self.task else ""

    @property
    def pid(self) -> int:
        return int(_container(self.task).get("PID", 0) or 0) if self.task else 0

    @property
    def node(self) -> str:
        return str(self.task.get("NodeID", "")) if self.task else ""

    @property
    def port(self) -> int | None:
        """The port of its node that leads to it."""
        return next((int(one["PublishedPort"]) for one in self._ports() if one.get("PublishedPort")), None)

    @property
    def inside(self) -> int | None:
        """The port that it is to listen on."""
        return next((int(one["TargetPort"]) for one in self._ports() if one.get("TargetPort")), None)

    def _ports(self) -> Sequence[Mapping[str, Any]]:
        return ((self.task or {}).get("Status", {}).get("PortStatus") or {}).get("Ports") or ()

    def observation(self) -> Observation:
        if self.state in ("waiting", "running"):
            return Observation("running")  # a task that moves is Swarm's to bring back; health checks tell meanwhile
        if self.state == "absent" or self.task is None or not self.container:
            return Observation("absent")
        code = int(_container(self.task).get("ExitCode", 0))
        if code < 0:
            return Observation("absent")
        return Observation("ended", signal=code - 128) if code > 128 else Observation("ended", code=code)


def judge(tasks: Sequence[Task], down: Collection[str] = ()) -> Verdict:
    """`down` are the nodes that Swarm has lost: what it has given up there counts no more; it ends when they return."""
    ordered = sorted(tasks, key=lambda task: moment(str(task["CreatedAt"])))
    left = [task for task in ordered if not (task.get("NodeID") in down and task["DesiredState"] != "running")]
    for wanted in (True, False):  # one that Swarm wants before one that it leads out
        for task in reversed(left):
            if _state(task) == "running" and (task["DesiredState"] == "running") is wanted:
                return Verdict("running", task)
    before = [task for task in left if _state(task) in _ENDED]
    waiting = [task for task in left if _state(task) not in _ENDED and not _is_parked(task)]
    if waiting and not (before and _state(before[-1]) in _BY_ITSELF):
        return Verdict("waiting", waiting[-1], _why(waiting[-1]))
    if before:
        return Verdict("ended", before[-1], _why(before[-1]))
    return Verdict("absent")


def is_unplaced(verdict: Verdict) -> bool:
    """Whether Swarm has found no node for it yet."""
    return verdict.task is None or _state(verdict.task) in ("new", "allocated", "pending")


def digest(tasks: Sequence[Task]) -> tuple[tuple[str, str, str], ...]:
    """Another one means: look again."""
    return tuple(sorted((str(task["ID"]), _state(task), str(task["DesiredState"])) for task in tasks))


def _state(task: Task) -> str:
    return str(task["Status"]["State"])


def _why(task: Task) -> str:
    return str(task["Status"].get("Err") or task["Status"].get("Message") or "")


def _container(task: Task) -> Mapping[str, Any]:
    found: Mapping[str, Any] = task["Status"].get("ContainerStatus") or {}
    return found


def _is_parked(task: Task) -> bool:
    return PARKED in ((task["Spec"].get("Placement") or {}).get("Constraints") or ())

"""Whether a deployment has failed, and by whose fault. Pure.

Owns the rules of DECISIONS 19: a new instance failed, ended three times before it was ever healthy, was not healthy
within its start period; one that was healthy keeps crashing; or nothing got closer to the end for the progress
deadline. `afterwards` goes on judging for a while once all serve: a release that crashes after a minute is no success.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from instances.plan.model import DeploymentView, InstanceView
from instances.rollout.fleet import Fleet

EARLY_EXITS = 3
CRASHES = 2  # of one instance, after it was healthy


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    why: str
    instance: int | None = None


def find(deployment: DeploymentView, fleet: Fleet) -> Failure | None:
    """The first instance of a rolling deployment by which it has failed."""
    for instance in fleet.instances:
        if _own(deployment, fleet, instance) and fleet.fits(instance):
            failure = _of_instance(instance)
            if failure is not None:
                return failure
    return _crash_loop(deployment, fleet)


def overdue(
    deployment: DeploymentView, fleets: Sequence[Fleet], now: dt.datetime, watched_since: dt.datetime | None
) -> Failure | None:
    """No progress for the deadline."""
    if deployment.status == "pending" or now < deadline(deployment, watched_since):
        return None
    return _no_progress(deployment, fleets)


def afterwards(deployment: DeploymentView, fleet: Fleet, now: dt.datetime) -> Failure | None:
    """What makes a deployment fail that had succeeded: its instances end by themselves while it is still watched."""
    if deployment.finished_at is None or fleet.goal.count == 0 or now >= watched_until(deployment):
        return None
    for instance in fleet.instances:
        if _own(deployment, fleet, instance) and instance.status == "failed":
            return _of_instance(instance)
    return _crash_loop(deployment, fleet)


def watched_until(deployment: DeploymentView) -> dt.datetime:
    assert deployment.finished_at is not None  # noqa: S101
    return deployment.finished_at + dt.timedelta(seconds=deployment.strategy.watch_s)


def deadline(deployment: DeploymentView, watched_since: dt.datetime | None) -> dt.datetime:
    """A leader that begins gives every deployment a full deadline: progress was not to be had without one.

    So does the end of a bake: until then nothing was to progress.
    """
    since = max(deployment.progress_at, watched_since) if watched_since else deployment.progress_at
    if deployment.baking_since is not None and not deployment.promoted:
        since = max(since, deployment.baking_since + dt.timedelta(seconds=deployment.strategy.bakes_for_s))
    return since + dt.timedelta(seconds=deployment.strategy.progress_deadline_s)


def _own(deployment: DeploymentView, fleet: Fleet, instance: InstanceView) -> bool:
    """Made by this rollout, and still wanted: what others left is not its fault."""
    return instance.deployment_id >= deployment.since and instance.desired == "run" and fleet.goal.made(instance)


def _of_instance(instance: InstanceView) -> Failure | None:
    said = f": {instance.detail}" if instance.detail else ""
    if instance.status == "failed":
        return Failure("instance_failed", f"instance {instance.id} failed{said}", instance.id)
    if instance.ever_healthy or not instance.live:
        return None
    if instance.restarts >= EARLY_EXITS:
        return Failure(
            "instance_crashed", f"instance {instance.id} ended {instance.restarts} times before it was healthy{said}",
            instance.id,
        )  # fmt: skip
    if instance.status == "starting" and instance.health == "unhealthy":
        return Failure("instance_unhealthy", f"instance {instance.id} did not become healthy{said}", instance.id)
    return None


def _crash_loop(deployment: DeploymentView, fleet: Fleet) -> Failure | None:
    """One instance crashed twice, or half of them (and more than one) did once; one crash may be anybody's fault."""
    crashed = [i for i in fleet.instances if _own(deployment, fleet, i) and i.crashes]
    worst = max(crashed, key=lambda i: (i.crashes, i.id), default=None)
    if worst is None:
        return None
    if worst.crashes < CRASHES and not 2 <= len(crashed) >= fleet.goal.count / 2:
        return None
    said = f": {worst.detail}" if worst.detail else ""
    what = f"{worst.crashes} times" if worst.crashes > 1 else f"and {len(crashed) - 1} more"
    return Failure("instance_crashed", f"instance {worst.id} crashed after it was healthy, {what}{said}", worst.id)


def _no_progress(deployment: DeploymentView, fleets: Sequence[Fleet]) -> Failure:
    seconds = f"{deployment.strategy.progress_deadline_s:g} s"
    kept = [fleet.best(slot) for fleet in fleets for slot in fleet.slots]
    waiting = [best for best in kept if best is not None and not best.available]
    pending = next((i for i in waiting if i.status == "pending"), None)
    if pending is not None:
        return Failure("no_room", f"no node took instance {pending.id} for {seconds}: {pending.reason}", pending.id)
    stuck = waiting[0] if waiting else None
    what = f"; instance {stuck.id} is {stuck.status} ({stuck.health})" if stuck else ""
    return Failure("no_progress", f"nothing got further for {seconds}{what}", stuck.id if stuck else None)

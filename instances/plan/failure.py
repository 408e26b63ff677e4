"""Whether a deployment has failed, and by whose fault. Pure.

Owns the rules of DECISIONS 19: a new instance failed, ended three times before it was ever healthy, was not healthy
within its start period; or nothing got closer to the end for the progress deadline.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from instances.plan.model import DeploymentView, InstanceView
from instances.rollout.fleet import Fleet

EARLY_EXITS = 3


@dataclass(frozen=True, slots=True)
class Failure:
    code: str
    why: str
    instance: int | None = None


def find(
    deployment: DeploymentView, fleet: Fleet, now: dt.datetime, watched_since: dt.datetime | None
) -> Failure | None:
    """The first reason for which a rolling deployment has failed."""
    for instance in fleet.instances:
        if instance.deployment_id == deployment.id and instance.desired == "run" and fleet.fits(instance):
            failure = _of_instance(instance)
            if failure is not None:
                return failure
    if deployment.status != "pending" and now >= deadline(deployment, watched_since):
        return _no_progress(deployment, fleet)
    return None


def deadline(deployment: DeploymentView, watched_since: dt.datetime | None) -> dt.datetime:
    """A leader that begins gives every deployment a full deadline: progress was not to be had without one."""
    since = max(deployment.progress_at, watched_since) if watched_since else deployment.progress_at
    return since + dt.timedelta(seconds=deployment.strategy.progress_deadline_s)


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


def _no_progress(deployment: DeploymentView, fleet: Fleet) -> Failure:
    seconds = f"{deployment.strategy.progress_deadline_s:g} s"
    waiting = [best for slot in fleet.slots if (best := fleet.best(slot)) is not None and not best.available]
    pending = next((i for i in waiting if i.status == "pending"), None)
    if pending is not None:
        return Failure("no_room", f"no node took instance {pending.id} for {seconds}: {pending.reason}", pending.id)
    stuck = waiting[0] if waiting else None
    what = f"; instance {stuck.id} is {stuck.status} ({stuck.health})" if stuck else ""
    return Failure("no_progress", f"nothing got further for {seconds}{what}", stuck.id if stuck else None)

"""An app's status from what is seen of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from instances.plan.model import Desired, Observed


def app_status(desired: Desired, observed: Observed, wanted: Mapping[str, int], *, working: bool) -> str:
    """created | deploying | running | degraded | stopped | crashed | deleting; `working`: a deployment is under way,
    `wanted`: how many of each process type are to run."""
    if desired.state == "deleted":
        return "deleting"
    if working:
        return "deploying"
    deployment = desired.deployment
    if deployment is None or (deployment.release is None and deployment.previous is None):
        return "created"
    live = [i for i in observed.instances if i.live]
    if not any(wanted.values()):
        return "deploying" if live else "stopped"
    serving = dict.fromkeys(wanted, 0)
    for instance in observed.instances:
        if instance.process_type in serving and (instance.available or instance.completed):
            serving[instance.process_type] += 1
    if all(serving[name] >= count for name, count in wanted.items()):
        return "running"
    if any(serving.values()):
        return "degraded"
    broken = any(i.status in ("crashed", "failed") or i.health == "unhealthy" for i in observed.instances)
    ended_badly = not live and deployment.status in ("failed", "cancelled")
    return "crashed" if broken or ended_badly else "degraded"

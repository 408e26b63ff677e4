"""An app's status from what is seen of it. Pure."""

from __future__ import annotations

from instances.plan.model import Desired, Observed


def app_status(desired: Desired, observed: Observed, *, working: bool) -> str:
    """created | deploying | running | degraded | stopped | crashed | deleting; `working`: a deployment is under way."""
    if desired.state == "deleted":
        return "deleting"
    if working:
        return "deploying"
    deployment = desired.deployment
    if deployment is None or (deployment.release is None and deployment.previous is None):
        return "created"
    live = [i for i in observed.instances if i.live]
    if desired.count == 0:
        return "deploying" if live else "stopped"
    serving = sum(1 for i in observed.instances if i.available or i.completed)
    if serving >= desired.count:
        return "running"
    if serving:
        return "degraded"
    broken = any(i.status in ("crashed", "failed") or i.health == "unhealthy" for i in observed.instances)
    ended_badly = not live and deployment.status in ("failed", "cancelled")
    return "crashed" if broken or ended_badly else "degraded"

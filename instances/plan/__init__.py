"""What to do next with an app: `plan(desired, observed, now) -> Plan`. Pure; see `planner`."""

from instances.plan.actions import Action, Plan
from instances.plan.model import Desired, Observed
from instances.plan.planner import plan

__all__ = ["Action", "Desired", "Observed", "Plan", "plan"]

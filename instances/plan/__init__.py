"""What to do next with an app: `planner.plan(desired, observed, now) -> Plan`. Pure.

model     what a plan is made from      actions  what it consists of
planner   the rules in their order      failure  when a deployment has failed
phases    trials beside the old release opening  what a new deployment starts from
crews     one fleet for each process type
"""
